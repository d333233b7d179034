"""The other end of the pipe to the PyTorch worker: start it, ask it, notice that it died and why."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class WorkerDied(Exception):
    """The worker process ended; the message says how, and its last words."""


class Worker:
    """A running worker. Use it as a context manager; leaving it ends the process.

    Args:
        model: checkpoint directory.
        dataset: dataset directory.

    Attributes:
        pid: of the process.

    Raises:
        WorkerDied: it ended before the model was loaded.
    """

    def __init__(self, model: Path, dataset: Path):
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aer_jax.proxies.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **_OFFLINE},
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the worker
        )
        self.pid = self._process.pid
        try:
            self._exchange({"model": str(model), "dataset": str(dataset)})
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ask(self, rows: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Answers to rows of {"utterance", "messages", "temperature", "seed"}, in order.

        Returns:
            {"response": text} or {"error": text} for each row.

        Raises:
            WorkerDied: the process ended.
        """
        return self._exchange(rows)["answers"]

    def _exchange(self, message: Any) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply.endswith("\n"):
            raise WorkerDied(self._cause())
        return json.loads(reply)

    def _cause(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        log = self._log.read().decode(errors="replace")
        if "No module named 'torch'" in log:
            return "it needs PyTorch: pip install 'aer-jax[proxies]'"
        if code == -signal.SIGKILL:
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
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
