"""One side of a bench: a process of its own that is given a job and then asked, line by line, so that sides take turns.

PyTorch and jax never meet in one process, and a machine that is busy with something else slows all sides down alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.errors import UserError

OFFLINE = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}  # of an accelerator, instead of three quarters


class Side:
    """A program of this package in its process. Use it as a context manager; leaving it ends the process.

    Args:
        module: of `aer_jax.bench.workers`, which calls `serve`.
        job: what it is told first.
        environment: on top of this process's.

    Attributes:
        about: what it answered to the job.

    Raises:
        UserError: it refused the job, or PyTorch or peft is missing.
        RuntimeError: it died.
    """

    def __init__(self, module: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"aer_jax.bench.workers.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | OFFLINE | dict(environment or {}),
            encoding="utf-8",
        )
        assert self._process.stdin and self._process.stdout  # pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        try:
            self.about = self.ask(job)
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process, if it has not ended; nothing can be asked afterwards."""
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # what it did not read
            self._stdin.close()
        self._stdout.close()
        self._log.close()

    def ask(self, message: Any) -> Any:
        """Its answer to one message, both JSON."""
        try:
            self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()
            answer = self._stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            reply = json.loads(answer)
            if "error" in reply:
                raise UserError(reply["error"])
            return reply
        self._process.wait()
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        for package in ("torch", "peft"):
            if any(f"No module named '{package}'" in line for line in words):
                raise UserError(
                    f"the bench compares with PyTorch, and {package} is missing: pip install 'aer-jax[bench]'."
                )
        raise RuntimeError(f"a side of the bench died: {' | '.join(words[-3:])}")


def compare(
    ours: Side,
    start_theirs: Callable[[], Side],
    names: Sequence[str],
    ask: Callable[[Side, str], Any],
    passes: int,
    title: str,
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Ask two processes for some passes of each way that they know, in turns, behind a progress bar.

    An accelerator has no room for both models: there ours ends before theirs starts.

    Args:
        names: ways; the first is ours, PyTorch knows the others.
        ask: one pass of one way.

    Returns:
        The answers by name, and what their side said about itself.
    """
    answers: dict[str, list[Any]] = {name: [] for name in names}
    together = ours.about["device"] == "cpu"
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=passes * len(names), desc=title, unit="pass"))

        def turn(side: Side, some: Sequence[str]) -> None:
            for name in some:
                answers[name].append(ask(side, name))
                bar.update()

        if not together:
            for _ in range(passes):
                turn(ours, names[:1])
            ours.end()
        theirs = stack.enter_context(start_theirs())
        for _ in range(passes):
            if together:
                turn(ours, names[:1])
            turn(theirs, names[1:])
    return answers, theirs.about


def serve(start: Callable[[dict[str, Any]], tuple[dict[str, Any], Callable[[Any], dict[str, Any]]]]) -> None:
    """The other end: answer the job with what `start` says of it, each further line with what its function returns."""
    # Whatever a library prints belongs to the log; only answers may go through the pipe.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    try:
        about, answer = start(json.loads(sys.stdin.readline()))
        reply(about)
        for line in sys.stdin:
            reply(answer(json.loads(line)))
    except UserError as error:
        reply({"error": str(error)})


class Clock:
    """Seconds by the wall since it was made, and of all cores' work for this process, which others lengthen less."""

    def __init__(self) -> None:
        self._start, self._worked = time.perf_counter(), time.process_time()

    def taken(self) -> dict[str, float]:
        seconds, worked = time.perf_counter() - self._start, time.process_time() - self._worked
        return {"seconds": seconds, "cpu_seconds": worked}


def reset_peak() -> None:
    """Let `peak_bytes` begin anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The most that this process had in memory since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
