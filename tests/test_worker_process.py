"""A worker process: what it answers, refuses and prints, and how its death or silence is told."""

import os
import subprocess
import sys
import time

import pytest

from aer_jax.errors import UserError
from aer_jax.worker_process import WorkerDied, WorkerProcess

WORKER = """
import os, sys, time
from aer_jax.errors import UserError
from aer_jax.worker_process import serve

def start(job):
    print("loaded")  # to the log, for the pipe has answers alone
    def answer(message):
        if message == "refuse":
            raise UserError("not this.")
        if message == "sleep":
            time.sleep(60)
        if message == "die":
            print("the reason", file=sys.stderr)
            os._exit(3)
        return {"twice": 2 * message}
    return {"job": job, "pid": os.getpid()}, answer

serve(start)
"""


def worker(program: str = WORKER, **settings) -> WorkerProcess:
    return WorkerProcess([sys.executable, "-c", program], {"a": 1}, extra="bench", hint="less may help", **settings)


def ended(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_it_answers_in_turn_and_ends_with_its_context():
    with worker() as process:
        assert process.about == {"job": {"a": 1}, "pid": process.pid}
        assert [process.ask(number) for number in (1, 2)] == [{"twice": 2}, {"twice": 4}]
    assert ended(process.pid)


@pytest.mark.parametrize(
    ("message", "timeout", "error", "said"),
    [
        ("refuse", None, UserError, r"^not this\.$"),
        ("die", None, WorkerDied, r"exit code 3; its last lines on stderr: loaded \| the reason"),
        ("sleep", 0.2, WorkerDied, r"did not answer within 0\.2 s \(less may help\)"),
    ],
)
def test_refusal_death_and_silence_are_one_sentence(message, timeout, error, said):
    with worker() as process, pytest.raises(error, match=said) as caught:
        process.ask(message, timeout)
    assert "\n" not in str(caught.value)


def test_one_that_never_starts():
    with pytest.raises(UserError, match=r"package torch is missing: pip install 'aer-jax\[bench\]'"):
        worker("raise ModuleNotFoundError(\"No module named 'torch'\")").__enter__()
    with pytest.raises(WorkerDied, match="did not answer"):
        worker("import time; time.sleep(60)", loading_seconds=0.2).__enter__()


def test_it_does_not_outlive_a_killed_parent():
    program = f"""
import os, sys
from aer_jax.worker_process import WorkerProcess
with WorkerProcess([sys.executable, "-c", {WORKER!r}], 0, extra="bench", hint="") as process:
    print(process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -9 and ended(int(done.stdout))
