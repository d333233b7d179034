"""Windows of a long recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aer_jax.base.lengths import MAX_SAMPLES, SAMPLE_RATE
from aer_jax.errors import UserError

LONGEST = MAX_SAMPLES / SAMPLE_RATE  # seconds that the audio tower takes
DEFAULT = 10.0  # seconds, about a turn of speech
SHORTEST = 0.5
SHORTEST_HOP = 0.1


@dataclass(frozen=True)
class Windowing:
    """Window, hop and longest whole recording, in samples.

    Attributes:
        window: length of a window.
        hop: from one window's start to the next, at most.
        longest: what is not longer stays whole.
    """

    window: int
    hop: int
    longest: int

    def spans(self, length: int) -> list[tuple[int, int]]:
        """(start, end) of the whole, or of the fewest windows that cover it, spread evenly."""
        if length <= self.longest:
            return [(0, length)]
        count = -(-(length - self.window) // self.hop) + 1
        starts = np.linspace(0, length - self.window, count).round().astype(int).tolist()
        return [(start, start + self.window) for start in starts]


def windowing(window: float | None, hop: float | None) -> Windowing:
    """The cuts for a window and a hop in seconds; None, None cuts what is longer than 30 s into windows of 10 s.

    Raises:
        UserError: lengths that cannot be.
    """
    for name, length in (("window", window), ("hop", hop)):
        if length is not None and (not isinstance(length, int | float | np.number) or isinstance(length, bool)):
            raise UserError(f"the {name} is {length!r:.40}; give seconds as a number.")
    if window is not None and not SHORTEST <= window <= LONGEST:
        raise UserError(
            f"the window is {window:g} s; it must last {SHORTEST:g} to {LONGEST:g} s, what the audio tower takes at "
            "once."
        )
    seconds = window or DEFAULT
    if hop is not None and not SHORTEST_HOP <= hop <= seconds:
        raise UserError(
            f"the hop is {hop:g} s; it must last at least {SHORTEST_HOP:g} s and at most a window ({seconds:g} s)."
        )
    samples, step = (round(length * SAMPLE_RATE) for length in (seconds, hop or seconds))
    return Windowing(samples, step, samples if window else MAX_SAMPLES)
