"""The window of steps that is traced."""

from types import SimpleNamespace

import pytest
import toy_runs

from aer_jax.errors import UserError
from aer_jax.training.hooks.profile import Profile, parse_window
from aer_jax.training.trainer import train


def traces(folder):
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def test_a_window_is_traced_and_changes_nothing(tmp_path, capsys):
    run = train(toy_runs.config(tmp_path / "run"), profile=(2, 3)).path
    (trace,) = traces(run / "profile")
    content = trace.read_bytes()
    assert b"train" in content and b"step_num" in content
    assert f"the trace is in {run / 'profile'}" in capsys.readouterr().err
    assert toy_runs.log_lines(run) == toy_runs.log_lines(toy_runs.trained_run())


def traced(folder, window, steps):
    profile, training = Profile(folder, window), SimpleNamespace(step=0, metrics={})
    profile.on_start(training)
    for _ in range(steps):
        training.step += 1
        profile.on_step(training)
        assert not traces(folder)
    profile.on_end(training)


def test_a_window_cut_short_is_kept(tmp_path):
    traced(tmp_path, (2, 9), steps=3)
    assert len(traces(tmp_path)) == 1


def test_a_window_that_never_came(tmp_path, capsys):
    traced(tmp_path, (8, 9), steps=1)
    assert "no step of --profile 8:9" in capsys.readouterr().err and not traces(tmp_path)


def test_windows():
    assert parse_window("20:25") == (20, 25) and parse_window("3:3") == (3, 3)
    for wrong in ("20", "0:3", "5:4", "a:b", "-1:2", "1:2:3"):
        with pytest.raises(UserError, match="for instance 20:25"):
            parse_window(wrong)
