"""Temperature and biases: what made the votes is found, and a clip is scored by other speakers' calibration."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from aer_jax.evaluation.calibration import calibrate, calibrated_left_out


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    return rng.normal(-3, 2, (600, 4)), rng


def test_the_calibration_that_made_the_votes_is_found(scores):
    scores_nk, _ = scores
    bias_k = np.array([0.5, -0.7, 0.1, 0.1])
    fitted = calibrate(scores_nk, softmax(scores_nk / 2.5 + bias_k, axis=1))
    assert fitted.temperature == pytest.approx(2.5, rel=1e-4)
    np.testing.assert_allclose(fitted.bias_k, bias_k, atol=1e-4)


def test_it_is_scikit_learns_logistic_regression_of_two_classes(scores):
    """Of two classes the model is a logistic regression on the difference of the scores."""
    scores_nk, rng = scores
    label_n = rng.integers(0, 2, len(scores_nk))
    difference_n1 = scores_nk[:, 1:2] - scores_nk[:, :1] + 1.5 * label_n[:, None]
    fitted = calibrate(np.hstack([np.zeros_like(difference_n1), difference_n1]), np.eye(2)[label_n])
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(difference_n1, label_n)
    assert 1 / fitted.temperature == pytest.approx(theirs.coef_[0, 0], rel=1e-4)
    assert fitted.bias_k[1] - fitted.bias_k[0] == pytest.approx(theirs.intercept_[0], rel=1e-3)


def test_mean_predictions_are_the_mean_shares(scores):
    scores_nk, rng = scores
    targets_nk = rng.dirichlet((8, 1, 1, 2), len(scores_nk))
    weights_n = rng.uniform(0.5, 2, len(scores_nk))
    probs_nk = softmax(calibrate(scores_nk, targets_nk, weights_n).logits(scores_nk), axis=1)
    np.testing.assert_allclose(np.average(probs_nk, axis=0, weights=weights_n),
                               np.average(targets_nk, axis=0, weights=weights_n), atol=1e-5)  # fmt: skip


def test_a_clip_is_calibrated_without_its_speaker(scores):
    scores_nk, rng = scores
    targets_nk, speakers_n = rng.dirichlet(np.ones(4), len(scores_nk)), np.arange(len(scores_nk)) % 7
    before = calibrated_left_out(scores_nk, targets_nk, speakers_n)
    changed = np.where((speakers_n == 3)[:, None], np.eye(4)[0], targets_nk)
    after = calibrated_left_out(scores_nk, changed, speakers_n)
    same_n = np.isclose(before, after, atol=1e-7).all(axis=1)
    assert same_n[speakers_n == 3].all() and not same_n.all()
