"""Pooling: the held-out score is what a plain loop computes, and the weight is the best one where it is known."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from aer_jax.labels.pooling import MOST, held_out_loss, learn_weights
from aer_jax.labels.votes import normalise


def drawn(rng, n=300, people=5, listeners=8, mixed=0.5):
    """A true distribution, human counts drawn from it, and synthetic ones from it mixed with a fixed bias."""
    truth_nk = rng.dirichlet(np.full(4, 0.5), n)
    heard_nk = (1 - mixed) * truth_nk + mixed * np.array([0.1, 0.2, 0.3, 0.4])
    return truth_nk, rng.multinomial(people, truth_nk).astype(float), rng.multinomial(listeners, heard_nk).astype(float)


def plain(human_nk, sources_nmk, weights_m):
    found = []
    for human_k, sources_mk in zip(human_nk, sources_nmk, strict=True):
        scores = []
        for k in np.repeat(np.arange(4), human_k.astype(int)):
            truth_k = np.eye(4)[k]
            pooled_k = human_k - truth_k + weights_m @ sources_mk
            scores.append(((pooled_k / pooled_k.sum() - truth_k) ** 2).sum())
        found.append(np.mean(scores))
    return found


def test_each_vote_is_held_out_in_turn():
    rng = np.random.default_rng(0)
    _, human_nk, one_nk = drawn(rng, 20)
    _, _, two_nk = drawn(rng, 20, listeners=3)
    sources_nmk, weights_m = np.stack([one_nk, two_nk], axis=1), np.array([0.3, 1.7])
    loss_n, slope_nm = held_out_loss(human_nk, sources_nmk, weights_m)
    np.testing.assert_allclose(loss_n, plain(human_nk, sources_nmk, weights_m), atol=1e-12)

    def mean(weights_m):
        return held_out_loss(human_nk, sources_nmk, weights_m)[0].mean()

    assert check_grad(mean, lambda w: held_out_loss(human_nk, sources_nmk, w)[1].mean(axis=0), weights_m) < 1e-6
    assert slope_nm.shape == (20, 2)


def test_an_infinite_weight_is_synthetic_votes_alone():
    _, human_nk, synthetic_nk = drawn(np.random.default_rng(1), 50)
    alone_n, _ = held_out_loss(human_nk, synthetic_nk[:, None], [np.inf])
    huge_n, _ = held_out_loss(human_nk, synthetic_nk[:, None], [1e9])
    np.testing.assert_allclose(alone_n, huge_n, atol=1e-6)


def test_votes_of_the_same_law_count_the_same():
    """Synthetic votes drawn as the human ones are exchangeable with them: the best weight is 1 (to 0.1, n 10,000)."""
    _, human_nk, synthetic_nk = drawn(np.random.default_rng(2), 10_000, mixed=0.0)
    assert learn_weights(human_nk, synthetic_nk[:, None])[0] == pytest.approx(1.0, abs=0.1)


def test_the_learned_weight_brings_targets_nearest_to_the_truth():
    """Truth is never shown, yet the weight is within 5 % of the squared error of the best weight for it."""
    truth_nk, human_nk, synthetic_nk = drawn(np.random.default_rng(3), 5_000)
    learned = learn_weights(human_nk, synthetic_nk[:, None])[0]

    def error(weight):
        return ((normalise(human_nk + weight * synthetic_nk) - truth_nk) ** 2).sum(axis=1).mean()

    best = min(error(weight) for weight in np.linspace(0, 2, 51))
    assert error(learned) < 1.05 * best < 0.9 * min(error(0.0), error(1.0))


def test_listeners_are_told_apart():
    """One listener hears what people hear; the other votes at random, which only smooths."""
    rng = np.random.default_rng(4)
    truth_nk, human_nk, _ = drawn(rng, 3_000)
    good_nk, random_nk = (rng.multinomial(1, p_nk).astype(float) for p_nk in (truth_nk, np.full((3_000, 4), 0.25)))
    good, random = learn_weights(human_nk, np.stack([good_nk, random_nk], axis=1))
    assert good > 0.8 and random < 0.65


def test_weights_stay_inside_their_bounds():
    human_nk = np.tile([2.0, 0, 0, 0], (10, 1))
    wrong_nk, right_nk = np.tile([0, 8.0, 0, 0], (10, 1)), np.tile([8.0, 0, 0, 0], (10, 1))
    assert learn_weights(human_nk, wrong_nk[:, None])[0] == 0
    assert 0 <= learn_weights(human_nk, right_nk[:, None])[0] <= MOST
