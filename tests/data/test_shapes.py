"""Batch shapes: every example fits, and the least computation that so many shapes allow."""

from __future__ import annotations

import math
import time
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aer_jax.data.batching.shapes import CANDIDATES, bucketize, choose_shapes, cut_into_batches

needs = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=40).map(np.array)


def computed(needs_n2, shapes_k2, batch):
    """What whole batches compute, each length in units of the mean need; written without the code under test."""
    first_n = [min(k for k, shape in enumerate(shapes_k2) if (shape >= need).all()) for need in needs_n2]
    leaders = sorted(first_n, reverse=True)[::batch]
    return sum((shapes_k2[k] / needs_n2.mean(axis=0)).sum() for k in leaders)


@settings(max_examples=60)
@given(needs, st.integers(1, 3), st.integers(1, 6), st.integers(0, 3))
def test_the_choice_is_the_best_of_all_ascending_shapes(needs_n2, count, batch, beyond):
    longest_2 = needs_n2.max(axis=0) + beyond
    every = [(s, t) for s in np.unique(needs_n2[:, 0]) for t in np.unique(needs_n2[:, 1])]
    every = [shape for shape in every if shape != tuple(longest_2)]
    best = min(
        (computed(needs_n2, np.array([*chosen, longest_2]), batch), k + 1)
        for k in range(count)
        for chosen in combinations(sorted(every), k)
        if all(a[1] <= b[1] for a, b in pairwise(chosen))
    )
    shapes_k2 = choose_shapes(needs_n2, longest_2, count, batch)
    assert computed(needs_n2, shapes_k2, batch) == pytest.approx(best[0], rel=1e-9)
    assert len(shapes_k2) <= best[1] or best[0] < computed(needs_n2, shapes_k2, batch)


@given(needs, st.integers(1, 5), st.integers(1, 6))
def test_every_example_is_in_one_batch_that_holds_it(needs_n2, count, batch):
    shapes_k2 = choose_shapes(needs_n2, needs_n2.max(axis=0), count, batch)
    assert 1 <= len(shapes_k2) <= count and (np.diff(shapes_k2, axis=0) >= 0).all()
    assert (shapes_k2[-1] == needs_n2.max(axis=0)).all()
    shape_n = bucketize(needs_n2, shapes_k2)
    assert all((shapes_k2[k] < need).any() for need, at in zip(needs_n2, shape_n, strict=True) for k in range(at))
    batches = cut_into_batches(shape_n, batch)
    assert sorted(np.concatenate([which for _, which in batches])) == list(range(len(needs_n2)))
    assert [len(which) for _, which in batches[:-1]] == [batch] * (len(batches) - 1)
    for shape, which in batches:
        assert (needs_n2[which] <= shapes_k2[shape]).all() and shape == shape_n[which].max()
    assert len(batches) == math.ceil(len(needs_n2) / batch)


def many(n):
    """Log-normal durations of 0.6 to 30 s and prompts that grow with them."""
    rng = np.random.default_rng(0)
    seconds_n = np.clip(rng.lognormal(1.3, 0.6, n), 0.6, 30)
    tokens_n = 110 + 25 * seconds_n + rng.poisson(3 * seconds_n)
    return np.stack([np.ceil(seconds_n * 50) * 320, np.ceil(tokens_n / 8) * 8], axis=1).astype(int)


@pytest.mark.parametrize("n", [2_000, 100_000])
def test_many_lengths_take_seconds_and_more_candidates_gain_little(n, monkeypatch):
    needs_n2 = many(n)
    began = time.process_time()
    shapes_k2 = choose_shapes(needs_n2, needs_n2.max(axis=0), 8, 32)
    seconds = time.process_time() - began
    more = CANDIDATES * 3 // 2
    monkeypatch.setattr("aer_jax.data.batching.shapes.CANDIDATES", more)
    cost, finer = (total(needs_n2, s) for s in (shapes_k2, choose_shapes(needs_n2, needs_n2.max(axis=0), 8, 32)))
    print(f"\n{n:,} utterances in {seconds:.1f} s; computed {cost:.4f} of what is needed, {finer:.4f} with {more}")
    assert seconds < 10
    assert cost < finer * 1.005


def total(needs_n2, shapes_k2):
    """Computed over needed, the mean of audio and tokens; batches of 32."""
    leaders = [shape for shape, _ in cut_into_batches(bucketize(needs_n2, shapes_k2), 32)]
    return float((shapes_k2[leaders].sum(axis=0) * 32 / needs_n2.sum(axis=0)).mean())


def test_what_cannot_be_placed_is_refused():
    for arguments in [
        (np.zeros((0, 2), int), [1, 1], 1, 1),
        ([[5, 5]], [4, 9], 1, 1),
        ([[5, 5]], [5, 5], 0, 1),
        ([[5, 5]], [5, 5], 1, 0),
    ]:
        with pytest.raises(ValueError, match="at least one example"):
            choose_shapes(np.array(arguments[0]), np.array(arguments[1]), *arguments[2:])
