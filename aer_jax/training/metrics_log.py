"""metrics.jsonl: what was measured while training, one JSON object a line."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from aer_jax.errors import UserError
from aer_jax.training.processes import is_first


class MetricsLog:
    """The log of a run; a step's numbers are fetched one step late, while the device is busy with the next.

    Args:
        path: the file; a resumed run forgets the lines that lie after `step`.
        step: steps done so far.
        epoch_steps: steps an epoch.
        bar: the progress bar that shows the loss.

    Attributes:
        request: the latest of what the processes asked each other for, see `step.make_train_step`.
    """

    def __init__(self, path: Path, step: int, epoch_steps: int, bar: tqdm):
        if is_first():
            path.write_text("".join(f"{line}\n" for line in _lines_up_to(path, step)))
        self._file = (path if is_first() else Path(os.devnull)).open("a")
        self._epoch_steps = epoch_steps
        self._bar = bar
        self._waiting: tuple[int, dict[str, jax.Array], float] | None = None
        self._last = time.monotonic()
        self.request = 0

    def step(self, step: int, measured: dict[str, jax.Array], input_seconds: float) -> None:
        """Take the numbers of step `step`, still on the device, and write those of the step before."""
        self.flush()
        self._waiting = (step, measured, input_seconds)

    def flush(self) -> None:
        """Write what waits.

        Raises:
            UserError: one of them is not finite.
        """
        if self._waiting is None:
            return
        step, measured, input_seconds = self._waiting
        self._waiting = None
        values = {name: float(value) for name, value in jax.device_get(measured).items()}
        self.request = int(values.pop("request", 0))
        refuse_not_finite(sum(values.values()), "the loss, its gradient or the update", step)
        now = time.monotonic()
        self.write(step, **values, seconds=round(now - self._last, 4), input_seconds=round(input_seconds, 4))
        self._last = now
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        self._bar.update()

    def write(self, step: int, **values: Any) -> None:
        """Append one line."""
        epoch = (step - 1) // self._epoch_steps + 1
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")
        self._file.flush()

    def restart_clock(self) -> None:
        """Do not count what happened since the last step, a validation or a save, as the next step's time."""
        self._last = time.monotonic()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()


def refuse_not_finite(value: float, what: str, step: int) -> None:
    """Raise a UserError where `what`, as `value`, is infinite or no number."""
    if not math.isfinite(value):
        raise UserError(
            f"{what} is not finite at step {step}; lower train.lr and train.head_lr and begin a new run. The best "
            "checkpoint so far stays."
        )


def _lines_up_to(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue  # cut short when the run was killed; its step comes again
    return kept
