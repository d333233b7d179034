"""What was measured while training: metrics.jsonl, one JSON object a line, and the same for TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from aer_jax.files.atomic import replace_text
from aer_jax.training.checkpoint import full_disk
from aer_jax.training.distributed import is_first
from aer_jax.training.hooks.nonfinite import not_finite
from aer_jax.training.hooks.tensorboard import TensorBoard

# Of a step's numbers these are counts, logged as rates.
COUNTS = ("utterances", "frames", "tokens", "padded_tokens")


class MetricsLog:
    """The log of a run; a step's numbers are fetched one step late, while the device is busy with the next.

    Of several processes all fetch, and the first writes.

    Args:
        folder: the run directory; a resumed run forgets the lines that lie after `step`.
        step: steps done so far.
        epoch_steps: steps an epoch.
        bar: the progress bar that shows the loss and the speed.
        rates: counts of a step and its seconds -> numbers to log, see `Throughput`.
        contents: step -> the clips of its batch, for the alarm when a number is not finite.

    Attributes:
        request: the latest of what the processes asked each other for, see `step.make_train_step`.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        epoch_steps: int,
        bar: tqdm,
        *,
        rates: Callable[[Mapping[str, float], float], dict[str, float]],
        contents: Callable[[int], Sequence[Mapping[str, Any]]],
    ):
        self._folder, self._epoch_steps, self._bar = folder, epoch_steps, bar
        self._rates, self._contents = rates, contents
        self._writes = is_first()
        if self._writes:
            path = folder / "metrics.jsonl"
            replace_text(path, "".join(f"{line}\n" for line in _lines_up_to(path, step)))
            self._file = path.open("a")
            self._board = TensorBoard(folder / "tensorboard", step)
        self._waiting: tuple[int, dict[str, jax.Array], float] | None = None
        self._last = time.monotonic()
        self.request = 0

    def step(self, step: int, measured: dict[str, jax.Array], input_seconds: float) -> None:
        """Take the numbers of step `step`, still on the device, and write those of the step before."""
        self._fetch()
        self._waiting = (step, measured, input_seconds)

    def flush(self) -> None:
        """Write what waits, and put all on disk.

        Raises:
            UserError: one of the numbers is not finite, or the disk is full.
        """
        self._fetch()
        if self._writes:
            with full_disk(self._folder):
                self._board.flush()

    def _fetch(self) -> None:
        if self._waiting is None:
            return
        step, measured, input_seconds = self._waiting
        self._waiting = None
        values = {name: float(value) for name, value in jax.device_get(measured).items()}
        self.request = int(values.pop("request", 0))
        if not math.isfinite(sum(values.values())):
            raise not_finite(self._folder, step, self._epoch(step), values, self._contents(step))
        now = time.monotonic()
        seconds = max(now - self._last, 1e-9)
        self._last = now
        rates = self._rates({name: values.pop(name) for name in COUNTS}, seconds)
        self.write(step, **values, seconds=round(seconds, 4), input_seconds=round(input_seconds, 4), **rates)
        shown = {"loss": f"{values['loss']:.4f}"}
        if "mfu" in rates:
            shown["mfu"] = f"{rates['mfu']:.0%}"
        shown["utt/s"] = f"{rates['utterances_per_second']:.3g}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def write(self, step: int, **values: float) -> None:
        """Append one line."""
        if self._writes:
            with full_disk(self._folder):
                self._file.write(json.dumps({"step": step, "epoch": self._epoch(step), **values}) + "\n")
                self._file.flush()
                self._board.write(step, values)

    def restart_clock(self) -> None:
        """Do not count what happened since the last step, a validation or a save, as the next step's time."""
        self._last = time.monotonic()

    def _epoch(self, step: int) -> int:
        return (step - 1) // self._epoch_steps + 1

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_) -> None:
        if self._writes:
            with full_disk(self._folder):
                self._file.close()
                self._board.close()


def _lines_up_to(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text("utf-8", "replace").split("\n") if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # cut short when the run was killed; its step comes again
    return kept
