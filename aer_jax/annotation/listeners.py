"""Synthetic listeners: one model under different personas and sampling temperatures.

Persona and temperature are independent factors by default: each block of as many listeners as there are personas has
every persona once, and the blocks shift the temperatures against the personas until all pairs have occurred. The plan
of the paper (arXiv 2601.14620) couples the two: persona i always has a temperature of band i.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aer_jax.errors import UserError

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)

BANDS = ((0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 0.93))
JITTER = 0.05
LOWEST, HIGHEST = 0.1, 1.0


@dataclass(frozen=True)
class Listener:
    """One synthetic listener.

    Attributes:
        index: which one, from 0.
        persona: the line that it is given.
        temperature: of its sampling, token by token; 0 always takes the likeliest.
    """

    index: int
    persona: str
    temperature: float

    def seed(self, utterance: str) -> int:
        """Seed of its answer to one utterance, below 2**48 so that JSON keeps it exactly."""
        digest = hashlib.sha256(f"{self.index}/{utterance}".encode()).digest()
        return int.from_bytes(digest[:6], "big")


def crossed(count: int, personas: Sequence[str], temperatures: Sequence[float] = TEMPERATURES) -> list[Listener]:
    """Listeners 0 to `count` - 1; who listener i is does not depend on `count`.

    With five personas and five temperatures any five listeners in a row have each of both once (a Latin square), and
    the first 25 are all pairs.

    Raises:
        UserError: a temperature is below 0 or above 2.
    """
    for temperature in temperatures:
        if not 0 <= temperature <= 2:
            raise UserError(f"a listener's temperature must lie between 0 and 2, not {temperature}.")
    round_trip = math.lcm(len(personas), len(temperatures))
    return [
        Listener(i, personas[i % len(personas)], float(temperatures[(i + i // round_trip) % len(temperatures)]))
        for i in range(count)
    ]


def coupled(count: int, personas: Sequence[str]) -> list[Listener]:
    """The paper's plan: persona i mod 5, and a temperature uniform in band i mod 5, seeded by i, jittered, clipped."""
    return [Listener(i, personas[i % len(personas)], _banded(i)) for i in range(count)]


def _banded(index: int) -> float:
    rng = np.random.default_rng(index)
    temperature = rng.uniform(*BANDS[index % len(BANDS)]) + rng.uniform(-JITTER, JITTER)
    return round(float(np.clip(temperature, LOWEST, HIGHEST)), 4)
