"""A window of steps, traced for xprof."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from aer_jax.errors import UserError
from aer_jax.training.distributed import is_first


def parse_window(text: str) -> tuple[int, int]:
    """ "20:25" as (20, 25), the first and the last step of a window.

    Raises:
        UserError: it is no window.
    """
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise UserError(f'--profile takes the first and the last step to trace, for instance 20:25, not "{text}".')
    return int(first), int(last)


class Profile:
    """Traces steps first..last into a folder that xprof and TensorBoard's profile plugin read.

    Every process of a run traces its own devices. Used in a `with` statement, which ends a window that is still open.

    Args:
        folder: the trace goes to `plugins/profile/` below it.
        window: first and last step, counted from 1; None traces nothing.
    """

    def __init__(self, folder: Path, window: tuple[int, int] | None):
        self._folder, self._window, self._open = folder, window, False

    def step(self, step: int) -> contextlib.AbstractContextManager[Any]:
        """Around the dispatch of step number `step`."""
        if self._window is None:
            return contextlib.nullcontext()
        if not self._open and self._window[0] <= step <= self._window[1]:
            jax.profiler.start_trace(self._folder)
            self._open = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def after(self, step: int, result: Any) -> None:
        """End the window with its last step, once the device has finished it: `result` is what it computes."""
        if self._open and self._window is not None and step >= self._window[1]:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._open, self._window = False, None
        say(f"the trace is in {self._folder}; `pip install xprof`, then `xprof --logdir {self._folder}` shows it")

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_) -> None:
        if self._open:
            self._stop()
        elif self._window is not None:
            say(f"no step of --profile {self._window[0]}:{self._window[1]} was done; nothing is traced")


def say(sentence: str) -> None:
    if is_first():
        tqdm.write(sentence, file=sys.stderr)
