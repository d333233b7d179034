"""The other end of the pipe to the PyTorch worker: start it, ask it, notice that it died and why."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aer_jax.base.chat import Messages
from aer_jax.errors import UserError

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


COMMAND = [sys.executable, "-m", "aer_jax.annotation.engines.pytorch.worker"]
LOADING_SECONDS = 1800.0


class WorkerDied(Exception):
    """The worker process ended; the message says how, and its last words."""


class Worker:
    """A worker process. Use it as a context manager; entering it loads the model, leaving it ends the process.

    Args:
        model: checkpoint directory.
        dataset: dataset directory.
        asked: a conversation like those to come.
        labels: the only answers there are; None lets it say what it likes.
        environment: variables of its own, for instance which GPU it sees.

    Attributes:
        pid: of the process.

    Raises:
        WorkerDied: it ended before the model was loaded.
        UserError: the model is not fit for this; the worker says why.
    """

    def __init__(
        self,
        model: Path,
        dataset: Path,
        asked: Messages,
        labels: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self._hung = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **_OFFLINE, **(environment or {})},
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the worker
        )
        assert self._process.stdin and self._process.stdout  # pipes
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.pid = self._process.pid
        self._setup = {"model": str(model), "dataset": str(dataset), "asked": asked, "labels": labels}

    def __enter__(self) -> Worker:
        """Wait until the model is loaded."""
        try:
            said = self._exchange(self._setup, LOADING_SECONDS)
            if "refused" in said:
                raise UserError(said["refused"])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, rows: list[dict[str, Any]], timeout: float | None = None) -> list[dict[str, str]]:
        """Answers to rows of {"utterance", "messages", "temperature", "seed"}, in order.

        Args:
            rows: the questions.
            timeout: seconds after which a worker that has not answered is ended.

        Returns:
            {"response": text} or {"error": text} for each row.

        Raises:
            WorkerDied: the process ended, or was ended.
        """
        return self._exchange(rows, timeout)["answers"]

    def end(self) -> None:
        """End the process; whoever waits for its answer is told that it died."""
        self._process.kill()

    def _exchange(self, message: Any, timeout: float | None = None) -> dict[str, Any]:
        timer = threading.Timer(timeout or 0, self._give_up)
        if timeout:
            timer.start()
        try:
            self._stdin.write(json.dumps(message) + "\n")
            self._stdin.flush()
            reply = self._stdout.readline()
        except BrokenPipeError:
            reply = ""
        finally:
            timer.cancel()
        if not reply.endswith("\n"):
            raise WorkerDied(self._cause())
        return json.loads(reply)

    def _give_up(self) -> None:
        self._hung = True
        self._process.kill()

    def _cause(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        if "No module named 'torch'" in log:
            return "it needs PyTorch: pip install 'aer-jax[annotate]'"
        if self._hung:
            how = "it had not answered in time (a longer --timeout, or a smaller --batch, helps where it is only slow)"
        elif code == -signal.SIGKILL:
            how = "it was killed (SIGKILL; out of memory is the usual reason, then a smaller --batch helps)"
        elif code < 0:
            how = f"it was killed by {signal.Signals(-code).name}"
        else:
            how = f"it ended with exit code {code}"
        words = [line.strip() for line in log.splitlines() if line.strip()]
        return f"{how}; its last words: {' | '.join(words[-3:])}" if words else how

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout, self._log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
