"""Runs with model.head=answers: zero-shot and calibrated, trained, resumed, exported and taken up again."""

import json

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file
from scipy.special import softmax
from toy_runs import CHECKPOINT, config, toy_dataset

from aer_jax.cli import main
from aer_jax.data.dataset import open_dataset
from aer_jax.inference.export import export
from aer_jax.training.predictor import Predictor, zero_shot_predictor
from aer_jax.training.readout import load_left_out
from aer_jax.training.trainer import train

ANSWERS = ("model.head=answers", "data.dime_aug.ratio=0", "data.augment=0")


@pytest.fixture(scope="module")
def dataset():
    return open_dataset(toy_dataset())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("answers") / "run", *ANSWERS, "train.fit=true", "train.head_lr=1e-3"))


def logged(run, key):
    lines = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return [line[key] for line in lines if key in line]


def test_without_epochs_the_answers_are_calibrated(dataset, tmp_path):
    run = train(config(tmp_path / "run", *ANSWERS, "train.epochs=0"))
    left_out = load_left_out(run.path)
    assert left_out.keys() == set(dataset.splits["train"]) | set(dataset.splits["validation"])
    probs_nk = Predictor(run).predict_utterances(dataset, dataset.splits["train"])
    assert probs_nk.shape == (32, 4) and np.isfinite(probs_nk).all()
    assert logged(run, "temperature")[0] > 0


def test_adapters_learn_through_the_answers(trained):
    losses = logged(trained, "val_js")
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_an_export_goes_on_where_the_run_was(trained, dataset, tmp_path):
    folder = export(trained.path, ["peft"], tmp_path / "out")["peft"]
    about = json.loads((folder / "emotion_head.json").read_text())
    assert about["head"] == "answers" and len(about["label_tokens"]) == 4
    again = train(config(tmp_path / "again", *ANSWERS, f"model.adapter={folder}", "train.epochs=1", "train.lr=1e-12",
                         "train.head_lr=1e-12"))  # fmt: skip
    ids = dataset.splits["test"]
    got, expected = (Predictor(run).predict_utterances(dataset, ids) for run in (again, trained))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_merged_checkpoint_answers_the_same(trained, dataset, tmp_path):
    """Zero-shot, the exported temperature and bias applied by hand."""
    merged = export(trained.path, ["merged"], tmp_path / "out")["merged"]
    head = load_file(merged / "emotion_head.safetensors")
    ids = dataset.splits["test"]
    audio, words = [dataset.audio(id) for id in ids], [dataset.utterances[id].transcript for id in ids]
    zero_shot = zero_shot_predictor(config(tmp_path / "none", f"model.checkpoint={merged}"), dataset.classes)
    logits_nk = np.log(zero_shot.predict_waveforms(audio, words))
    probs_nk = softmax(logits_nk / np.exp(head["log_temperature"]) + head["bias"], axis=1)
    np.testing.assert_allclose(probs_nk, Predictor(trained).predict_utterances(dataset, ids), atol=1e-5)


def test_a_checkpoint_predicts_without_a_run(dataset, tmp_path, capsys):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, dataset.audio(dataset.splits["test"][0]), 16_000)
    command = ["predict", "--model", str(CHECKPOINT), str(clip), "--json"]
    assert main([*command, "--classes", ",".join(dataset.classes)]) == 0
    probs = json.loads(capsys.readouterr().out)["probs"]
    assert tuple(probs) == dataset.classes and sum(probs.values()) == pytest.approx(1, abs=1e-5)
    for wrong in ("", "sad", "sad,sad"):
        assert main([*command, "--classes", wrong]) == 2
        assert "--model needs --classes" in capsys.readouterr().err
