"""What an epoch visits: every example once, or classes equally often; decided by seed and epoch alone."""

from __future__ import annotations

from typing import Literal

import numpy as np


def expected_draws(class_n: np.ndarray, sampling: Literal["uniform", "balanced"]) -> np.ndarray:
    """How often an epoch visits each example, on average.

    Uniform: once. Balanced: n / (classes that occur x examples of its class), so that classes are equally
    frequent and an epoch is as long as a uniform one.

    Args:
        class_n: most likely class of each example.

    Returns:
        float64 [n], sums to n.
    """
    if sampling == "uniform":
        return np.ones(len(class_n))
    _, inverse_n, size_c = np.unique(class_n, return_inverse=True, return_counts=True)
    return len(class_n) / (len(size_c) * size_c[inverse_n])


def draw_epoch(class_n: np.ndarray, draws_n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The examples that one epoch visits, n of them, in random order.

    Systematic sampling (Madow & Madow, 1944): examples, shuffled within their class, lie side by side on a line, each
    as long as its expected draws, and are taken at unit steps from a random start. An example is drawn its expected
    number of times, rounded up or down, and so is each class; with `draws_n` all 1, every example exactly once.

    Args:
        class_n: class of each example.
        draws_n: see `expected_draws`; sums to n.
        rng: shuffles and starts.

    Returns:
        int64 [n].
    """
    n = len(class_n)
    line_n = rng.permutation(n)
    line_n = line_n[np.argsort(class_n[line_n], kind="stable")]
    ends_n = np.cumsum(draws_n[line_n])
    # A dyadic start: start + m is exact, so rounding can never take an example twice or not at all.
    points_n = rng.integers(2**20) / 2**20 + np.arange(n)
    return rng.permutation(line_n[np.searchsorted(ends_n * (n / ends_n[-1]), points_n, side="right")])
