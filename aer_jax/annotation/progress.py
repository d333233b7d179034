"""Progress of an annotation: rate, remaining time, shares of unparsed and failed answers."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

from tqdm import tqdm

from aer_jax.labels.attempts import Attempt


class Progress:
    """A bar that counts answers.

    The rate is taken from the arrival of the first answers on, so that loading a model is not counted.

    Args:
        total: questions of the whole annotation.
        done: those answered before this run.
        listeners: questions per utterance.
        clock: seconds.
    """

    def __init__(
        self,
        total: int,
        done: int,
        listeners: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.left, self.listeners, self.clock = total - done, listeners, clock
        self.outcomes: Counter[str | None] = Counter()
        self.count = 0
        self._first: tuple[float, int] | None = None
        shape = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} answers [{elapsed}{postfix}]"
        self._bar = tqdm(total=total, initial=done, bar_format=shape, desc="loading the annotator", file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()

    def update(self, attempts: Sequence[Attempt]) -> None:
        """Count attempts that have just been made."""
        self.outcomes.update(attempt.outcome for attempt in attempts)
        self.count += len(attempts)
        self.left -= len(attempts)
        if self._first is None:
            self._first = self.clock(), self.count
            self._bar.set_description("annotating", refresh=False)
        self._bar.set_postfix_str(self.sentence(), refresh=False)
        self._bar.update(len(attempts))

    def sentence(self) -> str:
        """Rate, time to the end, and shares of unparsed and failed answers."""
        parts = []
        if self._first is not None and self.count > self._first[1]:
            rate = (self.count - self._first[1]) / max(self.clock() - self._first[0], 1e-9)
            parts += [
                f"{rate / self.listeners:.3g} utterances/s",
                f"{tqdm.format_interval(self.left / rate)} to the end",
            ]
        parts.append(f"{self.outcomes['unparsed'] / max(self.count, 1):.1%} unparsed")
        if self.outcomes["failed"]:
            parts.append(f"{self.outcomes['failed']} failed")
        return ", ".join(parts)
