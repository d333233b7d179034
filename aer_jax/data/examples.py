"""A training example: a clip, or two clips interpolated, and the distribution to learn from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aer_jax.errors import UserError


@dataclass(frozen=True)
class Example:
    """One row of a batch before its audio is read.

    Attributes:
        first: id of an utterance.
        target: the distribution over the classes, sums to 1.
        second: id of the utterance that it is mixed with; None for a real clip.
        alpha: share of `second` in the mix, 0 to 1.
        weight: what it counts in the loss.
    """

    first: str
    target: tuple[float, ...]
    second: str | None = None
    alpha: float = 0.0
    weight: float = 1.0

    @property
    def heard(self) -> tuple[str, ...]:
        """The utterances that sound in it, one or two."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def spoken(self) -> str:
        """The utterance whose words and speaker the prompt names: the one that is heard more."""
        return self.first if self.second is None or self.alpha < 0.5 else self.second


def real_examples(
    ids: Sequence[str], targets_nk: np.ndarray, weights_n: Sequence[float] | np.ndarray | None = None
) -> list[Example]:
    """One unmixed example per utterance; without weights all count 1.

    Raises:
        UserError: a distribution is not finite; an utterance without votes has none.
    """
    for id, target_k in zip(ids, targets_nk, strict=True):
        if not np.isfinite(target_k).all():
            raise UserError(f"utterance {id} has no distribution over the classes; leave it out or give it votes.")
    weights_n = np.ones(len(ids)) if weights_n is None else weights_n
    return [
        Example(id, tuple(float(p) for p in target_k), weight=float(weight))
        for id, target_k, weight in zip(ids, targets_nk, weights_n, strict=True)
    ]


def weighed(mixes: Sequence[Example], weights: Mapping[str, float]) -> list[Example]:
    """Mixes weighted by the weights of their two clips, in the mix's proportion.

    Args:
        weights: utterance -> what it counts.
    """
    return [
        dataclasses.replace(
            mix, weight=(1 - mix.alpha) * weights[mix.first] + mix.alpha * weights[mix.second or mix.first]
        )
        for mix in mixes
    ]


def mix_audio(a_t: np.ndarray, b_t: np.ndarray, alpha: float) -> np.ndarray:
    """a + alpha (b - a) over the shorter length; float32 [min(len(a), len(b))]."""
    samples = min(len(a_t), len(b_t))
    return a_t[:samples] + np.float32(alpha) * (b_t[:samples] - a_t[:samples])
