"""A run moved from device count to device count, 8 -> 4 -> 1 -> 8, ends as on one device that it never left."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_runs

# (devices, mesh, steps after which it is moved on)
PLACES = (
    (8, ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"), 3),
    (4, ("mesh.data=1", "mesh.fsdp=4"), 7),
    (1, (), 10),
    (8, ("mesh.data=8",), None),
)


def start(devices, *args):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"  # quick to compile
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "aer_jax", "train", *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def end(process):
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


def steps_done(run):
    log = run / "metrics.jsonl"
    return log.read_text().count('"grad_norm"') if log.exists() else 0


def settings(run, *more):
    """The readout's gradient vanishes in no parameter, so that all can be compared."""
    return toy_runs.settings(run, "train.microbatch=8", "train.head_lr=3e-3", *more)


def relative(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(one)


@pytest.mark.slow
def test_a_run_may_move(tmp_path, capsys):
    stayed, moved = tmp_path / "stayed", tmp_path / "moved"
    status, said = end(start(1, *settings(stayed)))
    assert status == 0, said
    for devices, mesh, until in PLACES:
        process = start(devices, *settings(moved, *mesh), "--resume")
        while until and process.poll() is None and steps_done(moved) < until:
            time.sleep(0.01)
        if until:
            process.send_signal(signal.SIGTERM)
        status, said = end(process)
        assert status == (75 if until else 0), said

    lines = [toy_runs.log_lines(run) for run in (stayed, moved)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    losses = [np.array([line["loss"] for line in log if "loss" in line]) for log in lines]
    first, second = (toy_runs.saved_arrays(run / "checkpoints") for run in (stayed, moved))
    assert first.keys() == second.keys()
    trainable = [name for name in first if "['trainable']" in name]
    assert len(trainable) > 15, list(first)
    worst = max(relative(first[name], second[name]) for name in trainable)
    apart = np.abs(losses[1] / losses[0] - 1).max()
    with capsys.disabled():
        print(f"\n    8 -> 4 -> 1 -> 8 devices: losses within {apart:.1e}, trainables within {worst:.1e}", end="")
    assert apart < 1e-5 and worst < 1e-5
