"""Beats of processes that share a run: the living are left alone, goodbyes are heard, the dead are named."""

import time

import pytest

from aer_jax.training.hooks.heartbeat import alive

FAST = {"beat": 0.01, "silent": 0.3}


def test_the_living_and_those_who_said_goodbye_are_no_reason_to_leave(tmp_path):
    left = []
    with alive(tmp_path, 0, 2, **FAST, leave=left.append):
        with alive(tmp_path, 1, 2, **FAST, leave=left.append):
            time.sleep(0.8)
        time.sleep(0.8)
    assert left == [] and list(tmp_path.iterdir()) == []


def test_a_process_that_fell_silent_is_named(tmp_path, capsys):
    """Its file stays behind, as after kill -9; one of an earlier start looks the same."""
    left = []
    (tmp_path / ".alive-2").write_text("1.0 7")
    with alive(tmp_path, 0, 3, **FAST, leave=left.append), alive(tmp_path, 1, 3, **FAST, leave=left.append):
        began = time.monotonic()
        while len(left) < 2 and time.monotonic() - began < 10:
            time.sleep(0.01)
        assert time.monotonic() - began > 0.25
    assert left == [75, 75]
    said = capsys.readouterr().err
    assert "process 0 of 3 lost the others (no sign of life of process 2 for 0.3 s)" in said and "--resume" in said


def test_a_process_that_failed_is_no_goodbye(tmp_path):
    left = []
    with alive(tmp_path, 0, 2, **FAST, leave=left.append):
        with pytest.raises(ZeroDivisionError), alive(tmp_path, 1, 2, **FAST, leave=left.append):
            time.sleep(0.1)
            raise ZeroDivisionError
        time.sleep(0.8)
    assert left == [75]


def test_one_process_alone_writes_nothing(tmp_path):
    with alive(tmp_path, 0, 1):
        assert list(tmp_path.iterdir()) == []
