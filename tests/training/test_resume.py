"""A run that dies anywhere ends with the same numbers, bit for bit."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
import toy_runs

from aer_jax import cli
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.training import setup
from aer_jax.training.hooks.metrics_log import MetricsLog
from aer_jax.training.run import open_run
from aer_jax.training.trainer import train


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
    """Log, best model, and final state with the optimizer's moments."""
    assert toy_runs.log_lines(one) == toy_runs.log_lines(other)
    for folder in ("best", "checkpoints"):
        first, second = (toy_runs.saved_arrays(run / folder) for run in (one, other))
        assert first.keys() == second.keys()
        for name, array in first.items():
            np.testing.assert_array_equal(array, second[name], err_msg=name)


def log_file(run):
    """Which file the log is: each process puts one of its own in the place of the last one's."""
    log = run / "metrics.jsonl"
    return log.stat().st_ino if log.exists() else None


def saving(run):
    return any("tmp" in path.name for folder in ("checkpoints", "best") for path in (run / folder).glob("*"))


def killed(rng, run, *args):
    """Start a run or go on with it, and kill it at a random moment: as it starts, between steps, or in a save."""
    before, moment = log_file(run), rng.choice(["start", "step", "save", "save"])
    process = toy_runs.start("train", *args, "--resume")
    began = time.monotonic()
    start_seconds = rng.uniform(0, 15)
    while process.poll() is None:
        started = log_file(run) not in (None, before) and steps_done(run)
        if moment == "start" and time.monotonic() - began > start_seconds:
            break
        if moment != "start" and started and (moment == "step" or saving(run)):
            time.sleep(rng.uniform(0, {"step": 0.4, "save": 0.02}[moment]))
            break
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), f"it must end by the kill alone, not with {process.returncode}"
    return moment


def kill_and_compare(tmp_path, seed, kills, whole, *more):
    run, rng = tmp_path / "run", np.random.default_rng(seed)
    args = toy_runs.settings(run, "train.checkpoint_minutes=0", *more)
    for _ in range(kills):
        killed(rng, run, *args)
    done = toy_runs.aer_jax("train", *args, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_run(run, whole)


def test_killed_runs_end_alike(tmp_path):
    """Every step is saved, so that most moments lie in a save."""
    kill_and_compare(tmp_path, 0, 5, toy_runs.trained_run())


@pytest.mark.slow
def test_runs_killed_twenty_times_end_alike(tmp_path):
    whole = train(toy_runs.config(tmp_path / "whole", "train.epochs=8", "train.patience=8")).path
    kill_and_compare(tmp_path, 1, 20, whole, "train.epochs=8", "train.patience=8")


def test_signals_save_and_say_so(tmp_path):
    run = tmp_path / "run"
    args = toy_runs.settings(run)
    for number, steps, more in ((signal.SIGTERM, 2, []), (signal.SIGINT, 7, ["--resume"])):
        process = interrupted(number, steps, *args, *more)
        assert process.returncode == 75
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
    original = MetricsLog.on_step

    def on_step(self, training):
        if training.step == step:
            raise Death
        original(self, training)

    monkeypatch.setattr(MetricsLog, "on_step", on_step)


@pytest.mark.parametrize(("began_earlier", "decay_all"), [(False, False), (True, True)])
def test_a_run_that_an_earlier_version_began_decays_biases_as_it_did(tmp_path, monkeypatch, began_earlier, decay_all):
    run = tmp_path / "run"
    shutil.copytree(toy_runs.trained_run(), run)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["biases_decay"] is False
    if began_earlier:
        del environment["biases_decay"]
        (run / "environment.json").write_text(json.dumps(environment))

    def make_optimizer(settings, steps, decay_all):
        raise Death(decay_all)

    monkeypatch.setattr(setup, "make_optimizer", make_optimizer)
    with pytest.raises(Death) as death:
        train(toy_runs.config(run), resume=True)
    assert death.value.args == (decay_all,)


def test_the_published_head_on_a_bfloat16_base_resumes_and_predicts(tmp_path, monkeypatch):
    """The published head has no statistics to save; a base in bfloat16 keeps float32 trainables."""
    other = ["model.head=paper", "model.dtype=bfloat16", "data.sampling=balanced"]
    short = ["train.epochs=2", "train.head_lr=1e-3", *other]
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


def test_an_extended_run_goes_on_from_its_end(tmp_path, capsys, monkeypatch):
    """The settings are the run's own; a death on the way changes no bit."""
    whole, torn = (shutil.copytree(toy_runs.trained_run(), tmp_path / name) for name in ("whole", "torn"))
    assert cli.main(["train", "--resume", str(whole), "train.epochs=5"]) == 0
    assert f"{whole} is extended from 3 to 5 epochs" in capsys.readouterr().err
    lines, before = toy_runs.log_lines(whole), toy_runs.log_lines(toy_runs.trained_run())
    assert lines[: len(before)] == before and lines[-1]["step"] == 25
    rates = [line["lr"] for line in lines if line["step"] > 15 and "lr" in line]
    assert len(rates) == 10 and rates[0] < rates[1] < max(rates) == pytest.approx(3e-3) and rates[-1] < 3e-4

    with monkeypatch.context() as patch, pytest.raises(Death):
        die_at(18, patch)
        cli.main(["train", "train.epochs=5", "--resume", str(torn)])
    assert cli.main(["train", "--resume", str(torn)]) == 0
    assert_same_run(torn, whole)
    assert open_run(torn).config.out == str(torn)


def test_resume_begins_where_there_is_nothing_yet(tmp_path, capsys):
    """So that one command serves to begin and to go on, as schedulers need it."""
    run = train(toy_runs.config(tmp_path / "run"), resume=True)
    assert f"no run in {tmp_path}/run yet" in capsys.readouterr().err
    assert_same_run(run.path, toy_runs.trained_run())
