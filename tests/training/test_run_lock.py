"""A run directory is trained, evaluated and exported by one process at a time."""

import re
import signal
import time

import pytest
import toy_runs
from test_resume import assert_same_run, steps_done

from aer_jax.errors import UserError
from aer_jax.files.locks import locked
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.inference.export import export


def test_of_two_started_at_once_one_trains(tmp_path):
    run = tmp_path / "run"
    both = [toy_runs.start("train", *toy_runs.settings(run)) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], said
    winner, loser = both[codes.index(0)], said[codes.index(2)].splitlines()
    assert loser[-1].startswith(f"aer-jax: {run} is being trained by process {winner.pid} on ")
    assert "wait for its end, or stop it there" in loser[-1] and not any("Traceback" in line for line in loser)
    assert_same_run(run, toy_runs.trained_run())


def test_resume_next_to_a_live_run_leaves_it_alone(tmp_path):
    """After a kill, the run goes on at once; a third process is refused meanwhile."""
    run = tmp_path / "run"
    args = toy_runs.settings(run, "train.checkpoint_minutes=0")
    first = toy_runs.start("train", *args)
    while steps_done(run) < 3:
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it is alive, however slow
    second = toy_runs.aer_jax("train", *args, "--resume")
    assert second.returncode == 2 and f"process {first.pid} on " in second.stderr.splitlines()[-1], second.stderr
    first.send_signal(signal.SIGCONT)
    while steps_done(run) < 6:
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    first.kill()
    first.communicate()
    done = toy_runs.aer_jax("train", *args, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_run(run, toy_runs.trained_run())
    assert not list(run.glob(".*lock*"))


def test_evaluation_and_export(tmp_path):
    run = toy_runs.trained_run()
    for file, call in (
        (run / ".evaluate.lock", lambda: evaluate_run(run)),
        (tmp_path / ".peft.lock", lambda: export(run, ["peft"], tmp_path / "peft")),
    ):
        with locked(file, "it"), pytest.raises(UserError, match=re.escape("by this process itself (process ")):
            call()
