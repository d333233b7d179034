"""Worker process that answers each JSON line with one; an error names why it ended.

PyTorch and JAX never meet in one process. A worker ends when its input ends, so it never outlives who started it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from aer_jax.errors import UserError

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class WorkerDied(Exception):
    """The worker process ended; the message says how, with its last lines on stderr."""


class WorkerProcess:
    """A process that calls `serve`. Entering it sends the job and waits for the answer, leaving it ends the process.

    Args:
        command: what runs, for instance [sys.executable, "-m", module].
        job: the first message.
        extra: of this package, which installs what the worker imports.
        hint: what helps where it was too slow or out of memory.
        environment: variables on top of this process's.
        loading_seconds: until the job must be answered; None: as long as it takes.

    Attributes:
        pid: of the process.
        about: its answer to the job, from entering on.

    Raises:
        UserError: on entering or asking: it refuses, in its own sentence, or a package is missing.
        WorkerDied: likewise: the process ended, or was ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        job: Any,
        *,
        extra: str,
        hint: str,
        environment: Mapping[str, str] | None = None,
        loading_seconds: float | None = None,
    ):
        self._job, self._extra, self._hint, self._loading_seconds = job, extra, hint, loading_seconds
        self.about: dict[str, Any] = {}
        self._overdue: float | None = None  # seconds that it was given in vain
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **OFFLINE, **(environment or {})},
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the worker
        )
        assert self._process.stdin and self._process.stdout  # pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        try:
            self.about = self.ask(self._job, self._loading_seconds)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, message: Any, timeout: float | None = None) -> Any:
        """The answer to one message; a worker that has not answered after `timeout` seconds is ended."""
        timer = threading.Timer(timeout or 0, self._give_up, [timeout])
        if timeout:
            timer.start()
        try:
            self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()
            line = self._stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise self._death()
        answer = json.loads(line)
        if "refused" in answer:
            raise UserError(answer["refused"])
        return answer

    def kill(self) -> None:
        """End the process, from any thread; one that waits for its answer is told that it died."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout, self._log):
            with suppress(BrokenPipeError):
                stream.close()

    def _give_up(self, seconds: float) -> None:
        self._overdue = seconds
        self._process.kill()

    def _death(self) -> Exception:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        last = " | ".join([line.strip() for line in lines if line.strip()][-3:])
        if not self.about and (missing := re.search(r"No module named '(\w+)'", last)):
            return UserError(f"the package {missing[1]} is missing: pip install 'aer-jax[{self._extra}]'.")
        if self._overdue:
            how = f"it did not answer within {self._overdue:g} s ({self._hint})"
        elif code == -signal.SIGKILL:
            how = f"it was killed (SIGKILL; out of memory is the usual reason: {self._hint})"
        elif code < 0:
            how = f"it was killed by {signal.Signals(-code).name}"
        else:
            how = f"it ended with exit code {code}"
        return WorkerDied(f"{how}; its last lines on stderr: {last}" if last else how)


Reply = Callable[[dict[str, Any]], None]


def open_replies() -> Reply:
    """The worker's end: a function that sends an answer; whatever a library prints goes to the log instead."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    return reply


def serve(start: Callable[[Any], tuple[dict[str, Any], Callable[[Any], dict[str, Any]]]]) -> None:
    """Answer the job with what `start` says of it, each further line with what its function returns.

    A UserError in either is a refusal.
    """
    reply = open_replies()
    try:
        about, answer = start(json.loads(sys.stdin.readline()))
        reply(about)
        for line in sys.stdin:
            reply(answer(json.loads(line)))
    except UserError as error:
        reply({"refused": str(error)})
