"""What an epoch visits: exact counts in every epoch, exact expectations over many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.data.batching.batches import draw_epoch, expected_draws

classes = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(np.array)


@given(classes)
def test_expectations(class_n):
    np.testing.assert_array_equal(expected_draws(class_n, "uniform"), 1)
    balanced_n = expected_draws(class_n, "balanced")
    occurring = np.unique(class_n)
    for c in occurring:
        np.testing.assert_allclose(balanced_n[class_n == c].sum(), len(class_n) / len(occurring))
        assert len(set(balanced_n[class_n == c])) == 1


@given(classes, st.sampled_from(["uniform", "balanced"]), st.integers(0, 2**31 - 1))
def test_each_example_and_each_class_comes_as_often_as_expected_rounded_up_or_down(class_n, sampling, seed):
    draws_n = expected_draws(class_n, sampling)
    rows = draw_epoch(class_n, draws_n, np.random.default_rng(seed))
    assert len(rows) == len(class_n)
    visits_n = np.bincount(rows, minlength=len(class_n))
    assert (np.abs(visits_n - draws_n) < 1 + 1e-9).all()
    by_class, expected = (np.bincount(class_n, weights=w) for w in (visits_n, draws_n))
    assert (np.abs(by_class - expected) < 1 + 1e-9).all()
    if sampling == "uniform":
        assert (visits_n == 1).all()


def test_rounding_favours_no_class_and_no_example():
    """Eleven examples of classes of 7, 3 and 1: 11/3 of each class an epoch."""
    class_n = np.array([0] * 7 + [1] * 3 + [2])
    draws_n, rng, epochs = expected_draws(class_n, "balanced"), np.random.default_rng(0), 20_000
    visits_n = sum(np.bincount(draw_epoch(class_n, draws_n, rng), minlength=11) for _ in range(epochs))
    # A visit count of one epoch varies by at most 1/4; five standard errors.
    np.testing.assert_allclose(visits_n / epochs, draws_n, atol=5 * 0.5 / np.sqrt(epochs))


def test_the_order_is_random():
    class_n = np.repeat([0, 1], 500)
    rows = draw_epoch(class_n, np.ones(1000), np.random.default_rng(0))
    # Classes are mixed: the first half holds about half of each; hypergeometric, standard deviation 7.9.
    assert abs((rows[:500] < 500).sum() - 250) < 40
