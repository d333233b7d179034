"""Several processes train one run: the losses of one process, and an end in one sentence where one of them dies."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_runs

from aer_jax.errors import UserError
from aer_jax.training import distributed as processes

DEVICES = 4


def start(count: int, run, *more: str) -> list[subprocess.Popen]:
    """`aer-jax train` in `count` processes that share four fake devices along `data` and `fsdp`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = ["train", *toy_runs.settings(run, "train.epochs=2", "mesh.data=2", "mesh.fsdp=2"), *more]
    running = []
    for index in range(count):
        flags = f"--xla_force_host_platform_device_count={DEVICES // count} --xla_backend_optimization_level=0"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        if count > 1:
            environment |= {
                processes.COORDINATOR: f"127.0.0.1:{port}",
                processes.INDEX: str(index),
                processes.COUNT: str(count),
            }
        command = [sys.executable, "-m", "aer_jax", *args]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=environment, **pipes))
    return running


def finish(running: list[subprocess.Popen], seconds: int = 900) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each."""
    said = [process.communicate(timeout=seconds) for process in running]
    return [(process.returncode, *words) for process, words in zip(running, said, strict=True)]


def assert_same_losses(one, other):
    first, second = toy_runs.log_lines(one), toy_runs.log_lines(other)
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for line, same in zip(first, second, strict=True):
        assert line.keys() == same.keys()
        np.testing.assert_allclose(list(same.values()), list(line.values()), rtol=1e-5, err_msg=str(line))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process on all four devices."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert [code for code, *_ in finish(start(1, run))] == [0]
    return run


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_losses_are_those_of_one_process(alone, tmp_path, count):
    ended = finish(start(count, tmp_path / "run"))
    assert [code for code, *_ in ended] == [0] * count, ended
    assert ["done; next" in out for _, out, _ in ended] == [True] + [False] * (count - 1), "the first one speaks"
    assert_same_losses(alone, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "said"),
    [(0, "the first process is gone|lost the others"), (1, "another process is gone|lost the others")],
)
def test_when_one_is_killed_the_others_say_so_and_the_restarted_run_goes_on(alone, tmp_path, victim, said):
    """JAX ends those that lost the first with a stack trace of its own; the last word is ours."""
    run = tmp_path / "run"
    running = start(2, run, "train.checkpoint_minutes=0")
    while not (run / "checkpoints").is_dir() or not any(
        name.name.isdigit() for name in (run / "checkpoints").iterdir()
    ):
        assert all(process.poll() is None for process in running), finish(running)
        time.sleep(0.05)
    running[victim].send_signal(signal.SIGKILL)
    ended = finish(running, 180)
    code, _, error = ended[1 - victim]
    assert ended[victim][0] == -signal.SIGKILL and code == 75, ended
    last = error.strip().splitlines()[-1]
    assert re.search(said, last) and "--resume" in last and "Traceback" not in error, error
    ended = finish(start(2, run, "train.checkpoint_minutes=0", "--resume"))
    assert [code for code, *_ in ended] == [0, 0], "\n".join(error for *_, error in ended)
    assert_same_losses(alone, run)


@pytest.mark.slow
def test_when_one_is_asked_to_stop_all_save_and_stop(alone, tmp_path):
    run = tmp_path / "run"
    running = start(2, run)
    while not (run / "metrics.jsonl").exists() or len(toy_runs.log_lines(run)) < 2:
        assert all(process.poll() is None for process in running), finish(running)
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    ended = finish(running, 180)
    assert [code for code, *_ in ended] == [75, 75], ended
    assert all(re.search(r"stopped at step \d of 10 as asked; .* continue it with --resume", err) for *_, err in ended)
    assert [code for code, *_ in finish(start(2, run, "--resume"))] == [0, 0]
    assert_same_losses(alone, run)


@pytest.mark.parametrize(
    "given", [("host:1", "", ""), ("", "0", "2"), ("host:1", "2", "2"), ("host:1", "one", "2"), ("host:1", "0", "-2")]
)
def test_half_an_address_is_refused(monkeypatch, given):
    for name, value in zip((processes.COORDINATOR, processes.INDEX, processes.COUNT), given, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="do not say which process this is; set all three"):
        processes.join()


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, True),
        ({"AER_JAX_DISTRIBUTED": "0"}, False),
        ({"AER_JAX_DISTRIBUTED": "1"}, True),
    ],
)
def test_jax_is_asked_to_find_the_others_where_a_launcher_says_so(monkeypatch, variables, several):
    for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES", processes.DETECT):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(processes.jax.distributed, "initialize", lambda **options: calls.append(options))
    processes.join()
    assert len(calls) == several
