"""Pooling: the held-out score is what a plain loop computes, and the weight is the best one where it is known."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from aer_jax.labels.pooling import MOST, held_out_loss, learn_weight
from aer_jax.labels.votes import normalise


def drawn(rng, n=300, people=5, listeners=8, mixed=0.5):
    """A true distribution, human counts drawn from it, and synthetic ones from it mixed with a fixed bias."""
    truth_nk = rng.dirichlet(np.full(4, 0.5), n)
    heard_nk = (1 - mixed) * truth_nk + mixed * np.array([0.1, 0.2, 0.3, 0.4])
    return truth_nk, rng.multinomial(people, truth_nk).astype(float), rng.multinomial(listeners, heard_nk).astype(float)


def plain(human_nk, synthetic_nk, weight):
    losses = []
    for human_k, synthetic_k in zip(human_nk, synthetic_nk, strict=True):
        scores = []
        for k in np.repeat(np.arange(4), human_k.astype(int)):
            truth_k = np.eye(4)[k]
            pooled_k = human_k - truth_k + weight * synthetic_k
            scores.append(((pooled_k / pooled_k.sum() - truth_k) ** 2).sum())
        losses.append(np.mean(scores))
    return losses


def test_each_vote_is_held_out_in_turn():
    _, human_nk, synthetic_nk = drawn(np.random.default_rng(0), 20)
    loss_n, slope_n = held_out_loss(human_nk, synthetic_nk, 0.3)
    np.testing.assert_allclose(loss_n, plain(human_nk, synthetic_nk, 0.3), atol=1e-12)

    def mean(weight_1, part=0):
        return held_out_loss(human_nk, synthetic_nk, weight_1[0])[part].mean(keepdims=bool(part))

    assert check_grad(mean, lambda weight_1: mean(weight_1, 1), np.array([0.3])) < 1e-6
    assert slope_n.shape == (20,)


def test_an_infinite_weight_is_synthetic_votes_alone():
    _, human_nk, synthetic_nk = drawn(np.random.default_rng(1), 50)
    alone_n, _ = held_out_loss(human_nk, synthetic_nk, np.inf)
    huge_n, _ = held_out_loss(human_nk, synthetic_nk, 1e9)
    np.testing.assert_allclose(alone_n, huge_n, atol=1e-6)


def test_votes_of_the_same_law_count_the_same():
    """Synthetic votes drawn as the human ones are exchangeable with them: the best weight is 1 (to 0.1, n 10,000)."""
    _, human_nk, synthetic_nk = drawn(np.random.default_rng(2), 10_000, mixed=0.0)
    assert learn_weight(human_nk, synthetic_nk) == pytest.approx(1.0, abs=0.1)


def test_the_learned_weight_brings_targets_nearest_to_the_truth():
    """Truth is never shown, yet the weight is within 5% of the squared error of the best weight for it."""
    truth_nk, human_nk, synthetic_nk = drawn(np.random.default_rng(3), 5_000)
    learned = learn_weight(human_nk, synthetic_nk)

    def error(weight):
        return ((normalise(human_nk + weight * synthetic_nk) - truth_nk) ** 2).sum(axis=1).mean()

    best = min(error(weight) for weight in np.linspace(0, 2, 51))
    assert error(learned) < 1.05 * best < 0.9 * min(error(0.0), error(1.0))


def test_the_weight_stays_inside_its_bounds():
    human_nk = np.tile([2.0, 0, 0, 0], (10, 1))
    wrong_nk, right_nk = np.tile([0, 8.0, 0, 0], (10, 1)), np.tile([8.0, 0, 0, 0], (10, 1))
    assert learn_weight(human_nk, wrong_nk) == 0
    assert 0 <= learn_weight(human_nk, right_nk) <= MOST
