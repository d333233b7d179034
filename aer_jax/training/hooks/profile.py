"""A window of steps, traced for xprof."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from tqdm import tqdm

from aer_jax.errors import UserError
from aer_jax.training.distributed import is_first
from aer_jax.training.hooks.hook import Hook

if TYPE_CHECKING:
    from aer_jax.training.trainer import Training


def parse_window(text: str) -> tuple[int, int]:
    """ "20:25" as (20, 25), the first and the last step of a window.

    Raises:
        UserError: it is no window.
    """
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise UserError(f'--profile takes the first and the last step to trace, for instance 20:25, not "{text}".')
    return int(first), int(last)


class Profile(Hook):
    """Traces steps first..last into a folder that xprof and TensorBoard's profile plugin read.

    Every process of a run traces its own devices. A window that is still open when the run ends is kept.

    Args:
        folder: the trace goes to `plugins/profile/` below it.
        window: first and last step, counted from 1.
    """

    def __init__(self, folder: Path, window: tuple[int, int]):
        self._folder, (self._first, self._last) = folder, window
        self._open = self._done = False

    def on_start(self, training: Training) -> None:
        self._start(training.step + 1)

    def on_step(self, training: Training) -> None:
        if self._open and training.step >= self._last:
            jax.block_until_ready(training.metrics)
            self._stop()
        self._start(training.step + 1)

    def on_end(self, training: Training) -> None:
        if self._open:
            self._stop()
        elif not self._done:
            say(f"no step of --profile {self._first}:{self._last} was done; nothing is traced")

    def _start(self, step: int) -> None:
        if not self._open and not self._done and self._first <= step <= self._last:
            jax.profiler.start_trace(self._folder)
            self._open = True

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._open, self._done = False, True
        say(f"the trace is in {self._folder}; `pip install xprof`, then `xprof --logdir {self._folder}` shows it")


def say(sentence: str) -> None:
    if is_first():
        tqdm.write(sentence, file=sys.stderr)
