"""The linear probe equals scikit-learn's logistic regression, and its L2 comes from the validation split alone."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from aer_jax.evaluation.linear_probe import (
    L2,
    choose_l2,
    fit_coordinates,
    fit_probe,
    left_out,
    logistic_regression,
    temperature,
)
from aer_jax.evaluation.metrics import js_divergence


def clips(n, features, classes=3, seed=0, noise=1.0):
    """Features that tell something about the distributions, the same in every draw."""
    rng = np.random.default_rng(seed)
    kernel_fk = np.random.default_rng(9).normal(size=(features, classes)) / features**0.5
    x_nf = rng.normal(1, 2, (n, features))
    p_nk = np.exp(x_nf @ kernel_fk + noise * rng.normal(size=(n, classes)))
    return x_nf, p_nk / p_nk.sum(axis=1, keepdims=True)


def sklearns(x_nf, targets_nk, l2, weights_n=None):
    """A distribution as target is each class once, weighted by its share; C is the inverse of the summed penalty."""
    n, k = targets_nk.shape
    weights_n = np.ones(n) if weights_n is None else weights_n
    model = LogisticRegression(C=1 / (weights_n.sum() * l2), tol=1e-10, max_iter=10_000)
    counts_nk = targets_nk * weights_n[:, None]
    return model.fit(np.repeat(x_nf, k, axis=0), np.tile(np.arange(k), n), sample_weight=counts_nk.ravel())


@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_logistic_regression_is_scikit_learns(l2):
    x_nf, targets_nk = clips(60, 8)
    for weights_n in (None, np.random.default_rng(5).uniform(0.1, 3, 60)):
        kernel_fk, bias_k = logistic_regression(x_nf, targets_nk, l2, weights_n=weights_n)
        theirs = sklearns(x_nf, targets_nk, l2, weights_n)
        np.testing.assert_allclose(kernel_fk, theirs.coef_.T, atol=1e-5)
        np.testing.assert_allclose(bias_k - bias_k.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-5)


@pytest.mark.parametrize("features", [5, 200], ids=["fewer features than clips", "more"])
def test_the_probe_is_scikit_learns_on_standardised_features(features):
    train, validation = clips(80, features), clips(40, features, seed=1)

    def theirs(x_nf, targets_nk, l2):
        mean_f, deviation_f = x_nf.mean(0), x_nf.std(0) + 1e-5
        model = sklearns((x_nf - mean_f) / deviation_f / features**0.5, targets_nk, l2)
        return lambda x_nf: model.predict_proba((x_nf - mean_f) / deviation_f / features**0.5)

    in_float32 = [a.astype(np.float32) for a in (*train, *validation)]
    chosen = choose_l2(*in_float32)
    best = min(L2, key=lambda l2: js_divergence(validation[1], theirs(*train, l2)(validation[0])).mean())
    assert chosen.l2 == best
    np.testing.assert_allclose(chosen(validation[0]), theirs(*train, best)(validation[0]), atol=1e-4)
    both = [np.concatenate(parts) for parts in zip(train, validation, strict=True)]
    other_mf = clips(20, features, seed=2)[0]
    np.testing.assert_allclose(fit_probe(*in_float32)(other_mf), theirs(*both, best)(other_mf), atol=1e-4)


def test_noise_is_penalised_more():
    quiet, loud = (choose_l2(*clips(50, 30, noise=noise), *clips(50, 30, seed=1, noise=noise)) for noise in (0.1, 9.0))
    assert quiet.l2 < loud.l2


def test_what_is_said_about_a_speaker_was_learned_from_others():
    features_nf, targets_nk = clips(60, 8)
    speakers_n = np.arange(60) % 5
    once_lnk = left_out(features_nf, targets_nk, speakers_n)
    mine_n = speakers_n == 3
    targets_nk[mine_n] = targets_nk[mine_n, ::-1]
    again_lnk = left_out(features_nf, targets_nk, speakers_n)
    np.testing.assert_array_equal(again_lnk[:, mine_n], once_lnk[:, mine_n])
    assert (np.abs(again_lnk - once_lnk)[:, ~mine_n].max(axis=-1) > 1e-4).all()


def test_the_temperature_is_the_best_of_a_grid():
    rng = np.random.default_rng(0)
    logits_nk = rng.normal(size=(200, 4))
    targets_nk = softmax(logits_nk / 0.6 + 0.3 * rng.normal(size=(200, 4)), axis=1)
    found, js = temperature(logits_nk, targets_nk)
    grid = np.linspace(0.3, 2, 171)
    by_t = [js_divergence(targets_nk, softmax(logits_nk / t, axis=1)).mean() for t in grid]
    assert found == pytest.approx(grid[np.argmin(by_t)], abs=0.01) and js <= min(by_t) + 1e-9


def test_many_coordinates_are_fitted_in_float32_as_in_float64():
    x_nf, targets_nk = clips(400, 20)
    x_nf = x_nf / np.linalg.norm(x_nf, axis=1).mean()
    (exact,), (quick,) = (fit_coordinates(x_nf.astype(kind), targets_nk, (L2[4],)) for kind in (float, np.float32))
    np.testing.assert_allclose(quick(x_nf), exact(x_nf), atol=1e-3)
