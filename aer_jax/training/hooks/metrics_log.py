"""Metrics while training: metrics.jsonl, one JSON object per line, and TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from tqdm import tqdm

from aer_jax.files.atomic import replace_text
from aer_jax.training.checkpoint import full_disk
from aer_jax.training.distributed import is_first
from aer_jax.training.hooks.hook import Hook
from aer_jax.training.hooks.nonfinite import not_finite
from aer_jax.training.hooks.tensorboard import TensorBoard

if TYPE_CHECKING:
    from aer_jax.training.trainer import Training

# Of a step's numbers these are counts, logged as rates.
COUNTS = ("utterances", "frames", "tokens", "padded_tokens")


class MetricsLog(Hook):
    """The log of a run; a step's numbers are fetched one step late, while the device is busy with the next.

    Of several processes all fetch, and the first writes. A resumed run forgets the lines after its step.

    Args:
        folder: the run directory.
        rates: counts of a step and its seconds -> numbers to log, see `Throughput`.
        contents: step -> the clips of its batch, for the error where a number is not finite.
    """

    def __init__(
        self,
        folder: Path,
        rates: Callable[[Mapping[str, float], float], dict[str, float]],
        contents: Callable[[int], Sequence[Mapping[str, Any]]],
    ):
        self._folder, self._rates, self._contents = folder, rates, contents
        self._writes = is_first()

    def on_start(self, training: Training) -> None:
        self._steps_per_epoch = training.steps_per_epoch
        if self._writes:
            path = self._folder / "metrics.jsonl"
            replace_text(path, "".join(f"{line}\n" for line in _lines_up_to(path, training.step or -1)))
            self._file = path.open("a")
            self._board = TensorBoard(self._folder / "tensorboard", training.step)
        self._bar = tqdm(
            total=training.total_steps, initial=training.step, unit="step", desc="train", disable=not self._writes
        )
        self._waiting: tuple[int, dict[str, jax.Array], float] | None = None
        self._fetched_at = time.monotonic()

    def on_step(self, training: Training) -> None:
        self._fetch(training.saved_at)
        self._waiting = (training.step, training.metrics, training.input_seconds)
        if training.saving or training.epoch_ends:  # a step that is not finite is never saved
            self._fetch(training.saved_at)
            if self._writes:
                with full_disk(self._folder):
                    self._board.flush()

    def on_epoch(self, training: Training, losses: Mapping[str, float]) -> None:
        self._write(training.step, **losses)

    def on_end(self, training: Training) -> None:
        self._bar.close()
        if self._writes:
            with full_disk(self._folder):
                self._file.close()
                self._board.close()

    def _fetch(self, saved_at: float) -> None:
        if self._waiting is None:
            return
        step, metrics, input_seconds = self._waiting
        self._waiting = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not math.isfinite(sum(values.values())):
            raise not_finite(self._folder, step, self._epoch(step), values, self._contents(step))
        now = time.monotonic()
        seconds = max(now - max(self._fetched_at, saved_at), 1e-9)  # a validation and a save are no part of a step
        self._fetched_at = now
        rates = self._rates({name: values.pop(name) for name in COUNTS}, seconds)
        self._write(step, **values, seconds=round(seconds, 4), input_seconds=round(input_seconds, 4), **rates)
        shown = {"loss": f"{values['loss']:.4f}"}
        if "mfu" in rates:
            shown["mfu"] = f"{rates['mfu']:.0%}"
        shown["utt/s"] = f"{rates['utterances_per_second']:.3g}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def _write(self, step: int, **values: float) -> None:
        if self._writes:
            with full_disk(self._folder):
                self._file.write(json.dumps({"step": step, "epoch": self._epoch(step), **values}) + "\n")
                self._file.flush()
                self._board.write(step, values)

    def _epoch(self, step: int) -> int:
        return (step - 1) // self._steps_per_epoch + 1


def _lines_up_to(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text("utf-8", "replace").split("\n") if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # cut short when the run was killed; its step comes again
    return kept
