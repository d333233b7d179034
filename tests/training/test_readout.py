"""The readout is fitted before the first step: to its optimum, with a penalty that the validation split chose."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_runs
from flax import nnx
from sklearn.linear_model import LogisticRegression

from aer_jax import cli
from aer_jax.data.dataset import open_dataset
from aer_jax.evaluation import projection
from aer_jax.evaluation.linear_probe import L2
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.models.emotion_head import ReadoutHead
from aer_jax.models.qwen2_audio import Features
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.predictor import Predictor
from aer_jax.training.readout import Clips, fit_readout, load_left_out
from aer_jax.training.run import open_run


def clips(n, size, classes, seed):
    rng = np.random.default_rng(seed)
    inputs_ne = rng.normal(2, 3, (n, size)).astype(np.float32)
    kernel_ek = np.random.default_rng(9).normal(size=(size, classes)) / 4
    p_nk = np.exp(inputs_ne @ kernel_ek + rng.normal(size=(n, classes)))
    return Clips(
        inputs_ne,
        p_nk / p_nk.sum(1, keepdims=True),
        np.arange(n) + 100 * seed,
        np.arange(n) % 5 + 10 * seed,
        np.ones(n),
    )


def put(inputs_ne, head):
    """Features that make the head read these inputs."""
    n = len(inputs_ne)
    audio_lbe = jnp.asarray(inputs_ne[None, :, : head.sizes[0]])
    text_bth = jnp.asarray(inputs_ne[:, None, head.sizes[0] :])
    return Features(text_bth, jnp.ones((n, 1), bool), audio_lbe, jnp.zeros((0, 0)))


@pytest.mark.parametrize("hidden_size", [0, 4])
def test_the_head_is_scikit_learns_at_the_chosen_penalty_and_temperature(hidden_size):
    head = ReadoutHead(8, hidden_size, 3, rngs=nnx.Rngs(0))
    parts = clips(60, 8 + hidden_size, 3, 0), clips(30, 8 + hidden_size, 3, 1)
    ids_n, logits_nk, targets_nk, choice = fit_readout(head, *parts)
    inputs_ne = np.concatenate([part.inputs_ne for part in parts])
    n = len(inputs_ne)
    x_ne = (inputs_ne - inputs_ne.mean(0)) / inputs_ne.std(0) * np.asarray(head.scale_e)
    theirs = LogisticRegression(C=1 / (n * choice["readout_l2"]), tol=1e-9, max_iter=10_000)
    theirs.fit(np.repeat(x_ne, 3, axis=0), np.tile(np.arange(3), n), sample_weight=targets_nk.ravel())
    sharp_nk = theirs.predict_proba(x_ne) ** (1 / choice["temperature"])
    ours_nk = jax.nn.softmax(head(put(inputs_ne, head)))
    np.testing.assert_allclose(ours_nk, sharp_nk / sharp_nk.sum(1, keepdims=True), atol=2e-3)
    assert ids_n.tolist() == [*range(60), *range(100, 130)]
    left_out = js_divergence(targets_nk, np.asarray(jax.nn.softmax(logits_nk), np.float64)).mean()
    assert left_out <= choice["val_js_at_temperature_1"] + 1e-6


def test_a_run_of_no_epochs_is_the_readout_alone(tmp_path, capsys):
    run = tmp_path / "run"
    settings = toy_runs.settings(run, "train.epochs=0", "model.readout=audio", "data.dime_aug.ratio=0")
    assert cli.main(["train", *settings]) == 0
    error = capsys.readouterr().err
    assert "on speakers left out" in error and "train.epochs is 0: no steps" in error and "steps an epoch" not in error
    assert "fit the readout, speakers left out in turns: 100%" in error
    (line,) = toy_runs.log_lines(run)
    assert line["step"] == 0 and line["readout_l2"] in L2
    assert Checkpoints(run / "best").latest == 0
    dataset = open_dataset(toy_runs.toy_dataset())
    human = {part: human_distributions(dataset, dataset.splits[part]) for part in ("train", "test")}
    p_nk = Predictor(open_run(run)).predict_utterances(dataset, dataset.splits["test"])
    validation = evaluate_run(run, "validation")
    kept = load_left_out(run)
    assert kept.keys() == {*dataset.splits["train"], *dataset.splits["validation"]}
    ids = dataset.splits["validation"]
    kept_nk = np.array([kept[id] for id in ids])
    assert validation["js"] == pytest.approx(js_divergence(human_distributions(dataset, ids), kept_nk).mean())
    assert np.abs(kept_nk - Predictor(open_run(run)).predict_utterances(dataset, ids)).max() > 1e-3
    assert js_divergence(human["test"], p_nk).mean() < 0.8 * js_divergence(human["test"], human["train"].mean(0)).mean()


def test_clips_that_are_left_out_are_predicted_as_unheard(tmp_path, capsys):
    """Of a run with labels.missing=drop, the clips without a synthetic vote were not learned from."""
    dataset, journal, run = open_dataset(toy_runs.toy_dataset()), tmp_path / "journal.jsonl", tmp_path / "run"
    ids = dataset.splits["validation"]
    silent = {*dataset.splits["train"][:5], *ids[:3]}
    line = {"listener": 0, "persona": "", "temperature": 1.0, "seed": 0, "prompt": "p", "model": "m", "response": ""}
    lines = [
        line | {"utterance": id} | ({"outcome": "unparsed"} if id in silent else {"label": "happy"})
        for id in dataset.utterances
    ]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    labels = ("labels.source=combined", f"labels.journal={journal}", "labels.missing=drop")
    settings = toy_runs.settings(run, "train.epochs=0", "model.readout=audio", "data.dime_aug.ratio=0", *labels)
    assert cli.main(["train", *settings]) == 0
    sentence = "5 of 32 train clips and 3 of 8 validation clips; left out (labels.missing=drop)"
    assert sentence in capsys.readouterr().err
    facts = open_run(run).environment["without_synthetic_vote"]
    assert facts["sentence"].endswith(sentence) and facts["clips"] == {"train": 5, "validation": 3}
    kept = load_left_out(run)
    assert kept.keys() == {*dataset.splits["train"], *ids} - silent
    evaluate_run(run, "validation")
    lines = map(json.loads, (run / "evaluation" / "validation" / "predictions.jsonl").open())
    said = {line["id"]: list(line["probs"].values()) for line in lines}
    np.testing.assert_allclose([said[id] for id in ids[3:]], [kept[id] for id in ids[3:]], atol=1e-6)
    unheard_nk = Predictor(open_run(run)).predict_utterances(dataset, ids[:3])
    np.testing.assert_allclose([said[id] for id in ids[:3]], unheard_nk, atol=1e-5)


def test_adapters_go_on_from_the_fitted_readout(tmp_path):
    """At rate 0 nothing moves, so an epoch ends with what it began with: the fit to the training clips alone."""
    still, moving = tmp_path / "still", tmp_path / "moving"
    fit = ("train.fit=true", "train.epochs=1", "model.readout=audio")
    assert cli.main(["train", *toy_runs.settings(still, *fit, "train.lr=0", "train.head_lr=0")]) == 0
    assert cli.main(["train", *toy_runs.settings(moving, *fit, "train.lr=1e-3", "train.head_lr=1e-3")]) == 0
    begun, after = ([line for line in toy_runs.log_lines(run) if "val_js" in line] for run in (still, moving))
    assert begun[0]["step"] == after[0]["step"] == 0
    assert begun[0]["val_js"] == after[0]["val_js"] and begun[0]["readout_l2"] in L2
    assert begun[1]["val_js"] == pytest.approx(begun[0]["val_js"], abs=1e-6) != after[1]["val_js"]
    dataset = open_dataset(toy_runs.toy_dataset())
    human_nk = human_distributions(dataset, dataset.splits["validation"])
    assert begun[0]["val_js"] < 0.9 * js_divergence(human_nk, np.full_like(human_nk, 1 / human_nk.shape[1])).mean()
    assert not (still / "left_out.json").exists()
    assert Checkpoints(still / "best").latest == 0


@pytest.mark.parametrize("setting", ["train.epochs=0", "train.fit=true"])
def test_the_papers_head_is_not_fitted(setting, tmp_path, capsys):
    settings = toy_runs.settings(tmp_path / "run", setting, "model.head=paper")
    assert cli.main(["train", *settings]) == 2
    assert setting.partition("=")[0] in capsys.readouterr().err


def test_more_clips_than_an_exact_fit_takes_are_all_learned_from(tmp_path, monkeypatch, capsys):
    """By the readout and by the probe, in directions of a sample; the head is one of features like any other."""
    monkeypatch.setattr(projection, "EXACT", 24)
    monkeypatch.setattr(projection, "AXES", 16)
    dataset, run = open_dataset(toy_runs.toy_dataset()), tmp_path / "run"
    for kept in dataset.path.glob("linear_probe_*.json"):
        kept.unlink()
    settings = toy_runs.settings(run, "train.epochs=0", "model.readout=audio", "data.dime_aug.ratio=0")
    assert cli.main(["train", *settings]) == 0
    sentence = "fitted to all 40 clips, in 16 directions: the principal axes of a sample of 24 clips"
    assert f"readout: {sentence}" in capsys.readouterr().err
    assert load_left_out(run).keys() == {*dataset.splits["train"], *dataset.splits["validation"]}
    metrics = evaluate_run(run)
    assert f"linear probe: {sentence}" in capsys.readouterr().err
    mean_js = metrics["baselines"]["train_mean"]["js"]
    assert metrics["js"] < 0.9 * mean_js and metrics["baselines"]["linear_probe"]["js"] < 0.9 * mean_js
    for kept in dataset.path.glob("linear_probe_*.json"):  # it belongs to no other test
        kept.unlink()
