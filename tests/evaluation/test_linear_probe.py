"""The linear probe equals scikit-learn's logistic regression, and its L2 comes from the validation split alone."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from aer_jax.evaluation.linear_probe import L2, fit_probe, logistic_regression
from aer_jax.evaluation.metrics import js_divergence


def clips(n, features, classes=3, seed=0, noise=1.0):
    """Features that tell something about the distributions, the same in every draw."""
    rng = np.random.default_rng(seed)
    kernel_fk = np.random.default_rng(9).normal(size=(features, classes)) / features**0.5
    x_nf = rng.normal(1, 2, (n, features))
    p_nk = np.exp(x_nf @ kernel_fk + noise * rng.normal(size=(n, classes)))
    return x_nf, p_nk / p_nk.sum(axis=1, keepdims=True)


def sklearns(x_nf, targets_nk, l2):
    """A distribution as target is each class once, weighted by its share; C is the inverse of the summed penalty."""
    n, k = targets_nk.shape
    model = LogisticRegression(C=1 / (n * l2), tol=1e-10, max_iter=10_000)
    return model.fit(np.repeat(x_nf, k, axis=0), np.tile(np.arange(k), n), sample_weight=targets_nk.ravel())


@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_logistic_regression_is_scikit_learns(l2):
    x_nf, targets_nk = clips(60, 8)
    kernel_fk, bias_k = logistic_regression(x_nf, targets_nk, l2)
    theirs = sklearns(x_nf, targets_nk, l2)
    np.testing.assert_allclose(kernel_fk, theirs.coef_.T, atol=1e-5)
    np.testing.assert_allclose(bias_k - bias_k.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-5)


@pytest.mark.parametrize("features", [5, 200], ids=["fewer features than clips", "more"])
def test_the_probe_is_scikit_learns_on_standardised_features(features):
    x_nf, targets_nk = clips(80, features)
    validation_mf, validation_mk = clips(40, features, seed=1)
    probe = fit_probe(x_nf.astype(np.float32), targets_nk, validation_mf.astype(np.float32), validation_mk)
    mean_f, deviation_f = x_nf.mean(0), x_nf.std(0)
    theirs = {l2: sklearns((x_nf - mean_f) / deviation_f, targets_nk, l2) for l2 in L2}
    predicted = {l2: model.predict_proba((validation_mf - mean_f) / deviation_f) for l2, model in theirs.items()}
    assert probe.l2 == min(L2, key=lambda l2: js_divergence(validation_mk, predicted[l2]).mean())
    np.testing.assert_allclose(probe(validation_mf), predicted[probe.l2], atol=1e-4)


def test_noise_is_penalised_more():
    fitted = [fit_probe(*clips(50, 100, noise=noise), *clips(50, 100, seed=1, noise=noise)) for noise in (0.0, 9.0)]
    assert fitted[0].l2 < fitted[1].l2
