"""A run that is asked to stop before its first step ends at once, with the code that says: go on with --resume."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_runs


def catches(pid, number):
    """Whether a process has a handler for a signal."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def stopped(process, number, wait):
    """Exit code, standard error and seconds of a process that is sent a signal so long after it listens."""
    while not catches(process.pid, signal.SIGTERM):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(wait)
    began = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    return process.returncode, error, time.monotonic() - began


@pytest.mark.parametrize(("number", "wait"), [(signal.SIGTERM, 0), (signal.SIGTERM, 2.5), (signal.SIGINT, 1)])
def test_a_run_that_starts(tmp_path, number, wait):
    """While it imports, loads and compiles; what it leaves behind is in nobody's way."""
    run = tmp_path / "run"
    # Many shapes to compile with nothing cached.
    args = toy_runs.settings(run, "data.shapes=8")
    process = toy_runs.start("train", *args, env={"JAX_ENABLE_COMPILATION_CACHE": "false"})
    code, error, seconds = stopped(process, number, wait)
    assert code == 75 and seconds < 30, error
    last = error.strip().splitlines()[-1]
    assert last == "aer-jax: stopped as asked before it made a step; the same command with --resume goes on."
    assert "Traceback" not in error and not (run / "metrics.jsonl").exists()


def test_a_main_thread_that_does_not_come_back():
    """It is in a compiler, say, where no handler of Python's runs."""
    script = (
        "import hashlib\nfrom aer_jax.training.signals import stop_at_start\n"
        "with stop_at_start():\n    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    code, error, seconds = stopped(process, signal.SIGTERM, 0.5)
    assert code == 75 and seconds < 20 and "goes on." in error
