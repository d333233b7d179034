"""What benches share: worker processes that take turns at the same work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from aer_jax.errors import UserError
from aer_jax.worker_process import WorkerDied, WorkerProcess

MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}  # of an accelerator, instead of three quarters


class BenchWorker(WorkerProcess):
    """A module of `aer_jax.bench.workers` in a process of its own."""

    def __init__(self, module: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None):
        self.module = module
        command = [sys.executable, "-m", f"aer_jax.bench.workers.{module}"]
        hint = "a smaller train.microbatch may help"
        super().__init__(command, job, extra="bench", hint=hint, environment=environment)

    def ask(self, message: Any, timeout: float | None = None) -> Any:
        """See `WorkerProcess`; a death is a sentence for the user."""
        try:
            return super().ask(message, timeout)
        except WorkerDied as death:
            raise UserError(f"the bench's worker {self.module} is gone: {death}") from None


def compare(
    ours: BenchWorker,
    start_theirs: Callable[[], BenchWorker],
    names: Sequence[str],
    ask: Callable[[BenchWorker, str], Any],
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

        def turn(side: BenchWorker, some: Sequence[str]) -> None:
            for name in some:
                answers[name].append(ask(side, name))
                bar.update()

        if not together:
            for _ in range(passes):
                turn(ours, names[:1])
            ours.close()
        theirs = stack.enter_context(start_theirs())
        for _ in range(passes):
            if together:
                turn(ours, names[:1])
            turn(theirs, names[1:])
    return answers, theirs.about
