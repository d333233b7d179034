"""Synthetic listeners: the same model, asked in another manner and sampled at another temperature.

As in the paper (arXiv 2601.14620), listener i has persona i mod 5 and a temperature from band i mod 5, so
persona and temperature are coupled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

BANDS = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 0.93))
JITTER = 0.05
LOWEST, HIGHEST = 0.1, 1.0


@dataclass(frozen=True)
class Listener:
    """One synthetic listener.

    Attributes:
        index: which one, from 0.
        temperature: of its sampling, 0.1 to 1.
    """

    index: int
    temperature: float

    def persona(self, personas: tuple[str, ...]) -> str:
        """Its persona: `personas` are dealt out in turn."""
        return personas[self.index % len(personas)]

    def seed(self, utterance: str) -> int:
        """Seed of its answer to one utterance, below 2**48 so that JSON keeps it exactly."""
        digest = hashlib.sha256(f"{self.index}/{utterance}".encode()).digest()
        return int.from_bytes(digest[:6], "big")


def listener(index: int) -> Listener:
    """Listener `index`: temperature uniform in its band, seeded by `index`, jittered, then clipped."""
    rng = np.random.default_rng(index)
    temperature = rng.uniform(*BANDS[index % len(BANDS)]) + rng.uniform(-JITTER, JITTER)
    return Listener(index, round(float(np.clip(temperature, LOWEST, HIGHEST)), 4))
