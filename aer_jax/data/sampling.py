"""Which examples make up which batch of an epoch.

Decided by seed and epoch alone, so that any batch can be made again; every epoch has the same number of
batches.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

# Beside the seed, so that sampling and augmentation never share a stream of random numbers.
_SAMPLING = 1


class BatchPlan(NamedTuple):
    """One batch: its bucket and the examples in it, int64 [rows], 1 to `batch` of them."""

    bucket: int
    rows: np.ndarray


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


def plan_epoch(
    bucket_n: np.ndarray, class_n: np.ndarray, draws_n: np.ndarray, *, batch: int, seed: int, epoch: int
) -> list[BatchPlan]:
    """The batches of one epoch, in order.

    Each bucket has a fixed quota of draws, its share of `draws_n` rounded, at least one; so every epoch has
    the same number of batches. Inside a bucket the quota is met by systematic sampling (Madow & Madow, 1944):
    examples, shuffled within their class, lie side by side on a line, each as long as its expected draws, and
    are taken at unit steps from a random start. An example is drawn its expected number of times, rounded up
    or down; with `draws_n` all 1, exactly once.

    Args:
        bucket_n: bucket of each example.
        class_n: class of each example.
        draws_n: see `expected_draws`.
        batch: rows of a batch; only the last one of a bucket has fewer.
    """
    rng = np.random.default_rng([seed, _SAMPLING, epoch])
    plans = []
    for bucket in np.unique(bucket_n):
        members = rng.permutation(np.flatnonzero(bucket_n == bucket))
        members = members[np.argsort(class_n[members], kind="stable")]
        ends = np.cumsum(draws_n[members])
        quota = max(1, round(ends[-1]))
        # A dyadic start: start + m is exact, so rounding can never take an example twice or not at all.
        points = rng.integers(2**20) / 2**20 + np.arange(quota)
        drawn = members[np.searchsorted(ends * (quota / ends[-1]), points, side="right")]
        drawn = rng.permutation(drawn)
        plans += [BatchPlan(int(bucket), drawn[i : i + batch]) for i in range(0, quota, batch)]
    return [plans[i] for i in rng.permutation(len(plans))]
