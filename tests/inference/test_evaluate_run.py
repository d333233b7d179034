"""A trained run, evaluated: what is written is what the best model says."""

import dataclasses
import functools
import json
import re
import shutil

import numpy as np
import pytest
import toy_runs

from aer_jax.config import load_config, to_yaml
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.batching.shapes import window_for
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.errors import UserError
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.evaluation.projection import gather
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.models.emotion_model import load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.reports.evaluations import read_evaluation
from aer_jax.training.predictor import Predictor
from aer_jax.training.run import open_run


@pytest.fixture
def run(tmp_path):
    """A copy, to be written to."""
    path = shutil.copytree(toy_runs.trained_run(), tmp_path / "run")
    shutil.rmtree(path / "evaluation")
    return path


def test_predictions_and_metrics(run):
    metrics = evaluate_run(run)
    folder = run / "evaluation" / "test"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    dataset = open_dataset(toy_runs.toy_dataset())
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    probs = {line["id"]: np.array([line["probs"][label] for label in dataset.classes]) for line in lines}
    ids = dataset.splits["test"]
    assert sorted(probs) == sorted(ids) and len(lines) == len(ids) == metrics["n"]
    assert {line["id"]: line["speaker"] for line in lines} == {id: dataset.utterances[id].speaker for id in ids}

    probs_nk = np.array([probs[id] for id in ids])
    np.testing.assert_allclose(probs_nk.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(probs_nk, Predictor(open_run(run)).predict_utterances(dataset, ids), atol=1e-6)
    human_nk = human_distributions(dataset, ids)
    assert metrics["js"] == pytest.approx(js_divergence(human_nk, probs_nk).mean(), abs=1e-9)


def test_the_linear_probe_hears_what_the_base_hears_and_is_computed_once(run, monkeypatch):
    """Its row is that of a probe on the statistics of a model that was never trained."""
    metrics = evaluate_run(run)
    row = metrics["baselines"]["linear_probe"]
    assert row["js"] < metrics["baselines"]["train_mean"]["js"] and row["n"] == metrics["n"]

    opened = open_run(run)
    dataset = open_dataset(toy_runs.toy_dataset())
    ids = dataset.splits["test"]
    heard_nf = gather(ids, functools.partial(Predictor(opened).audio_statistics, dataset))
    untrained = load_model(opened.config.model, "abcd", make_mesh(opened.config.mesh), seed=1)
    clips = [dataset.audio(id) for id in ids[:2]]
    window = int(window_for([len(audio_t) for audio_t in clips]).max())
    audio_bs = np.stack([np.pad(audio_t, (0, window - len(audio_t))) for audio_t in clips])
    heard_lbe = untrained.base.audio_statistics(audio_bs, np.array([len(audio_t) for audio_t in clips]))
    np.testing.assert_allclose(heard_nf[:2], np.moveaxis(heard_lbe, 0, 1).reshape(2, -1), atol=1e-4)

    def hear(*_):
        raise AssertionError("it is on disk")

    monkeypatch.setattr(Predictor, "audio_statistics", hear)
    assert evaluate_run(run) == metrics


def test_evaluation_is_repeatable_and_split_by_split(run):
    assert evaluate_run(run, "validation") == evaluate_run(run, "validation")
    assert [folder.name for folder in (run / "evaluation").iterdir()] == ["validation"]


def test_shapes_and_company_do_not_change_predictions(run):
    """Other shapes, other batches: the same shares."""
    dataset = open_dataset(toy_runs.toy_dataset())
    ids = dataset.splits["test"]
    opened = open_run(run)
    once = Predictor(opened).predict_utterances(dataset, ids)
    config = load_config(run / "config.yaml", ["data.shapes=4", "train.microbatch=2"])
    again = Predictor(dataclasses.replace(opened, config=config)).predict_utterances(dataset, ids[::-1])[::-1]
    np.testing.assert_allclose(again, once, atol=1e-4)


def test_a_dataset_with_other_classes_is_refused(run, tmp_path):
    other = prepare(toy.generate(clips=24, speakers=6), tmp_path / "other", ["sad", "angry"]).path
    (run / "config.yaml").write_text(to_yaml(load_config(run / "config.yaml", [f"data.dataset={other}"])))
    with pytest.raises(UserError, match=r"predicts angry, happy, neutral, sad, .* has"):
        evaluate_run(run)


def test_a_dataset_that_moved_can_be_named_again(run, tmp_path):
    config = run / "config.yaml"
    written = config.read_text()
    config.write_text(written.replace(str(toy_runs.toy_dataset()), str(tmp_path / "gone")))
    with pytest.raises(UserError, match=r"gone, the dataset of .*config\.yaml"):
        evaluate_run(run)
    shutil.copytree(toy_runs.toy_dataset(), tmp_path / "moved")
    config.write_text(written.replace(str(toy_runs.toy_dataset()), str(tmp_path / "moved")))
    assert evaluate_run(run)["n"] == 8


def test_clips_that_were_trained_on_are_not_scored_as_test(run, tmp_path, capsys):
    """The dataset was prepared again with another draw; under its own name the training split is scored, and said."""
    other = prepare(toy.generate(clips=48, speakers=6), tmp_path / "other", seed=3).path
    (run / "config.yaml").write_text(to_yaml(load_config(run / "config.yaml", [f"data.dataset={other}"])))
    with pytest.raises(UserError, match=r"its training saw \d+ of the \d+ clips of this test split"):
        evaluate_run(run)
    assert not (run / "evaluation").exists()
    metrics = evaluate_run(run, "train")
    assert re.search(r"its training saw \d+ of the \d+ clips of this train split", metrics["inputs"]["trained_on"])
    assert metrics["inputs"]["trained_on"] in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_evaluated(run):
    file = next(file for file in (run / "best").rglob("*/d/*") if file.stat().st_size > 1000)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"best/\d+ cannot be restored .* is gone or is not what was written"):
        evaluate_run(run)


def test_metrics_that_are_not_of_the_run_are_noticed(run):
    """Edited, from another run, or of a checkpoint that is no longer the best."""
    evaluate_run(run)
    folder = run / "evaluation" / "test"
    assert read_evaluation(run, "test").metrics["inputs"]["trained_on"] == "this dataset"
    for file, change, words in (
        ("metrics.json", lambda text: text.replace('"n": ', '"n": 1', 1), r"metrics.json is not what was written"),
        ("predictions.jsonl", lambda text: text.replace("toy", "toi", 1), r"different data than the predictions"),
    ):
        text = (folder / file).read_text()
        assert change(text) != text
        (folder / file).write_text(change(text))
        with pytest.raises(UserError, match=words):
            read_evaluation(run, "test")
        (folder / file).write_text(text)
    step = next((run / "best").iterdir())
    step.rename(step.with_name(str(int(step.name) + 1)))
    (next((run / "best").iterdir()) / "sha256.json").unlink()
    with pytest.raises(UserError, match="has another best checkpoint than when it was evaluated"):
        read_evaluation(run, "test")
