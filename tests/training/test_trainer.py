"""The whole of `train` on toy speech: early stopping, what is compiled, and what stops a run."""

import dataclasses
import json
import logging
import math
import re
import subprocess

import jax
import numpy as np
import pytest
import toy_runs

from aer_jax import cli
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError
from aer_jax.training import setup, trainer
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.optimizer import make_optimizer
from aer_jax.training.predictor import Predictor
from aer_jax.training.run import open_run
from aer_jax.training.targets import Targets
from aer_jax.training.trainer import train


def validation_lines(run):
    return [line for line in toy_runs.log_lines(run) if "val_loss" in line]


def fake_losses(monkeypatch, values):
    """Validation losses as given instead of measured."""
    values = iter(values)
    monkeypatch.setattr(trainer, "validation_losses", lambda *_: dict.fromkeys(("val_loss", "val_js"), next(values)))


def test_it_learns():
    losses = [line["val_loss"] for line in validation_lines(toy_runs.trained_run())]
    assert len(losses) == 3 and losses[-1] < 0.9 * losses[0]


def test_every_step_says_how_well_and_how_fast():
    lines = [json.loads(line) for line in (toy_runs.trained_run() / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    for line in steps:
        assert line["loss"] == pytest.approx(line["js"] * math.log(2), rel=1e-5), "no entropy term here"
        assert 0 < line["js"] < 1 and line["js"] <= 1 - line["bc"] ** 2 + 1e-6, "Lin (1991): JS is at most 1 - BC^2"
        assert 0 < line["tokens_per_second"] < line["padded_tokens_per_second"]
        assert line["model_flops_per_second"] > 0 and 0 <= line["input_seconds"] <= line["seconds"] + 1
    validated = [line for line in lines if "val_loss" in line]
    assert all(0 < line["val_bc"] < 1 for line in validated) and len(validated) == 3


def test_a_run_keeps_its_shapes_and_their_padding():
    run = open_run(toy_runs.trained_run())
    batches = run.environment["batches"]
    assert batches["steps_per_epoch"] * 3 == toy_runs.log_lines(run.path)[-1]["step"]
    assert len(batches["shapes"]) == run.config.data.shapes == 1 and batches["cut"] == 0
    assert 0 < batches["padding"]["positions"] < batches["padding"]["frames"] < 0.5


def test_logged_validation_loss_is_that_of_the_saved_model():
    """The best model, loaded afresh, has the JS that the log says."""
    run = open_run(toy_runs.trained_run())
    best = min(validation_lines(run.path), key=lambda line: line["val_loss"])
    assert Checkpoints(run.path / "best").latest == best["step"]
    dataset = open_dataset(toy_runs.toy_dataset())
    ids = dataset.splits["validation"]
    p_nk = Predictor(run).predict_utterances(dataset, ids).astype(float)
    q_nk = Targets(dataset, run.config.labels).distributions(ids)
    m_nk = (p_nk + q_nk) / 2
    logs = np.log2(p_nk / m_nk), np.log2(np.where(q_nk > 0, q_nk, 1) / m_nk)
    js = (p_nk * logs[0] + q_nk * logs[1]).sum(1).mean() / 2
    assert js == pytest.approx(best["val_js"], abs=1e-5)


def test_early_stopping_and_the_best_epoch(tmp_path, monkeypatch):
    """Best in the first of three epochs; patience 1 ends it after the second, and for good."""
    more = ("train.patience=1",)
    fake_losses(monkeypatch, [0.3, 0.4, 0.1, 0.2])
    run = train(toy_runs.config(tmp_path / "run", *more)).path
    first, second = (line["step"] for line in validation_lines(run))
    assert second == 2 * first
    assert Checkpoints(run / "best").latest == first
    assert Checkpoints(run / "checkpoints").latest == second
    train(toy_runs.config(run, *more), resume=True)
    assert len(validation_lines(run)) == 2
    train(toy_runs.config(run, *more, "train.epochs=7"), resume=True)  # it counts anew when it is extended
    assert len(validation_lines(run)) == 4 and Checkpoints(run / "best").latest == 3 * first


def test_nothing_is_compiled_after_warm_up(tmp_path, caplog):
    """Over two epochs: a train step and a prediction for each batch shape, and nothing twice."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train(toy_runs.config(tmp_path / "run", "train.epochs=2", "data.shapes=2"))
    compiled = [
        match[1]
        for record in caplog.records
        if (match := re.match(r"Compiling (?:jit\()?([\w<>]+)\)? with global shapes", record.getMessage()))
    ]
    assert compiled.count("step") in (1, 2), compiled
    assert compiled.count("<lambda>") in (1, 2), "predictions"
    first_validation = compiled.index("<lambda>")
    after = [name for name in compiled[first_validation + 1 :] if name not in ("step", "<lambda>")]
    assert len(after) == len(set(after)), f"compiled again: {after}"


def test_a_loss_that_explodes_stops_the_run(tmp_path, capsys, monkeypatch):
    """At such a rate the loss is still finite when the head no longer is."""
    run = tmp_path / "run"
    settings = toy_runs.settings(run, "train.checkpoint_minutes=0")
    monkeypatch.setattr(
        setup,
        "make_optimizer",
        lambda train, *ends, **kw: make_optimizer(dataclasses.replace(train, head_lr=1e30), *ends, **kw),
    )
    assert cli.main(["train", *settings]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    step = int(re.search(r"not finite at step (\d+) \(epoch 1; clips ", message)[1])
    said = json.loads((run / "not_finite.json").read_text())
    batch = [clip["utterance"] for clip in said["batch"]]
    assert said["step"] == step and len(batch) == 8 and message.count(batch[0]) == 1
    assert set(batch) <= set(open_dataset(toy_runs.toy_dataset()).splits["train"])
    assert [line["step"] for line in toy_runs.log_lines(run)] == list(range(1, step))
    for checkpoint in (run / "checkpoints").iterdir():
        assert int(checkpoint.name) < step, "a step that is not finite is not saved"
    arrays = toy_runs.saved_arrays(run / "checkpoints")
    assert all(np.isfinite(a).all() for name, a in arrays.items() if "['state']" in name)


def test_a_validation_that_explodes_stops_the_run(tmp_path, monkeypatch):
    """The best model and the checkpoint of the epoch before stay."""
    fake_losses(monkeypatch, [0.5, float("nan")])
    run = tmp_path / "run"
    with pytest.raises(UserError, match="the validation loss is not finite at step 10"):
        train(toy_runs.config(run))
    assert Checkpoints(run / "best").latest == Checkpoints(run / "checkpoints").latest == 5


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small_disk):
    run = small_disk / "run"
    settings = toy_runs.settings(run, "train.checkpoint_minutes=0")
    full = toy_runs.aer_jax("train", *settings)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    message = full.stderr.splitlines()[-1]
    assert message.startswith("aer-jax: ") and "full" in message and "--resume" in message, message
    assert Checkpoints(run / "checkpoints").latest

    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    freed = toy_runs.aer_jax("train", *settings, "--resume")
    assert freed.returncode == 0, freed.stderr
    assert toy_runs.log_lines(run) == toy_runs.log_lines(toy_runs.trained_run())


@pytest.mark.parametrize("policy", ["full", "dots"])
def test_remat_changes_memory_alone(tmp_path, policy):
    runs = [toy_runs.trained_run(), train(toy_runs.config(tmp_path / "run", f"model.remat={policy}")).path]
    losses = [[line.get("loss", line.get("val_loss")) for line in toy_runs.log_lines(run)] for run in runs]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_environment_and_plan_are_kept():
    run = toy_runs.trained_run()
    plan = json.loads((run / "dime_aug.json").read_text())
    assert plan["ratio"] == 0.5 and plan["mixes"]
    assert json.loads((run / "environment.json").read_text())["classes"] == ["angry", "happy", "neutral", "sad"]
