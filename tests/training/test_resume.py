"""A run that dies anywhere ends with the same numbers, bit for bit."""

import signal
import time

import numpy as np
import pytest
import toy_runs

from aer_jax.pipeline import evaluate_run
from aer_jax.training.loop import train
from aer_jax.training.metrics_log import MetricsLog


def steps_done(run):
    log = run / "metrics.jsonl"
    return log.read_text().count('"grad_norm"') if log.exists() else 0


def interrupted(number, steps, *args):
    """Start a command, send it a signal once it has done so many steps, and wait for its end."""
    run = next(toy_runs.Path(arg.removeprefix("out=")) for arg in args if arg.startswith("out="))
    process = toy_runs.start("train", *args)
    while steps_done(run) < steps:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    process.stdout_text, process.stderr_text = process.communicate(timeout=120)
    return process


def assert_same_run(one, other):
    assert toy_runs.log_lines(one) == toy_runs.log_lines(other)
    assert_same_best(one, other)


def assert_same_best(one, other):
    first, second = (toy_runs.saved_arrays(run / "best") for run in (one, other))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_killed_runs_end_alike(tmp_path):
    """Killed before anything is saved, in the middle of saves, and after the first best model."""
    run = tmp_path / "run"
    args = [*toy_runs.settings(run, "train.checkpoint_minutes=0")]
    killed_at = []
    for steps in (1, 4, 9):
        more = ["--resume"] if killed_at else []
        process = interrupted(signal.SIGKILL, steps, *args, *more)
        assert process.returncode == -signal.SIGKILL
        killed_at.append(steps_done(run))
    assert killed_at[-1] < 15
    assert toy_runs.aer_jax("train", *args, "--resume").returncode == 0
    assert_same_run(run, toy_runs.trained_run())


def test_signals_save_and_say_so(tmp_path):
    run = tmp_path / "run"
    args = toy_runs.settings(run)
    for number, steps, more in ((signal.SIGTERM, 2, []), (signal.SIGINT, 7, ["--resume"])):
        process = interrupted(number, steps, *args, *more)
        assert process.returncode == 2
        done = steps_done(run)
        last = process.stderr_text.splitlines()[-1]
        assert last.startswith(f"aer-jax: stopped at step {done} of 15 as asked;") and "--resume" in last
        assert "Traceback" not in process.stderr_text
        assert int(max((run / "checkpoints").iterdir(), key=lambda p: int(p.name)).name) == done
    assert toy_runs.aer_jax("train", *args, "--resume").returncode == 0
    assert_same_run(run, toy_runs.trained_run())


class Death(BaseException):
    """What no handler of the package expects."""


def die_at(step, monkeypatch):
    """The process "dies" while it logs a step."""
    original = MetricsLog.step

    def log_step(self, number, *args):
        if number == step:
            raise Death
        original(self, number, *args)

    monkeypatch.setattr(MetricsLog, "step", log_step)


@pytest.mark.parametrize("variant", [["model.head=paper"], ["model.dtype=bfloat16", "data.sampling=balanced"]])
def test_variants_resume_and_predict(tmp_path, monkeypatch, variant):
    """The published head has no statistics to save; a base in bfloat16 keeps float32 trainables."""
    short = ["train.epochs=2", "train.head_lr=1e-3", *variant]
    whole = train(toy_runs.config(tmp_path / "whole", *short))
    config = toy_runs.config(tmp_path / "run", *short)
    with monkeypatch.context() as patch, pytest.raises(Death):
        die_at(7, patch)
        train(config)
    run = train(config, resume=True)
    assert_same_run(run.path, whole.path)
    assert all(a.dtype == np.float32 for a in toy_runs.saved_arrays(run.path / "best").values())
    metrics = evaluate_run(run.path)
    assert 0 < metrics["js"] < 1 and metrics["n"] == 8


def test_a_finished_run_resumed_does_nothing(tmp_path):
    before = toy_runs.log_lines(toy_runs.trained_run())
    best = toy_runs.saved_arrays(toy_runs.trained_run() / "best")
    train(toy_runs.config(toy_runs.trained_run()), resume=True)
    assert toy_runs.log_lines(toy_runs.trained_run()) == before
    after = toy_runs.saved_arrays(toy_runs.trained_run() / "best")
    assert all((best[name] == after[name]).all() for name in best)
