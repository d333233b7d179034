"""Calibration of label likelihoods: a temperature and a bias per class, fitted to votes by cross entropy.

Cross entropy is convex in 1 / temperature and the biases, so the optimum is unique; there mean predictions equal the
mean shares of the votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from aer_jax.evaluation.linear_probe import speaker_folds

COLDEST, HOTTEST = 0.05, 20.0  # bounds of the temperature


class Calibration(NamedTuple):
    """softmax(scores / temperature + bias)."""

    temperature: float
    bias_k: np.ndarray

    def logits(self, scores_nk: np.ndarray) -> np.ndarray:
        """float64 [N, K]."""
        return scores_nk / self.temperature + self.bias_k


def calibrate(scores_nk: np.ndarray, targets_nk: np.ndarray, weights_n: np.ndarray | None = None) -> Calibration:
    """Fit temperature and biases (which sum to 0).

    Args:
        scores_nk: log-likelihoods of the labels.
        targets_nk: distributions of the votes, rows sum to 1.
        weights_n: weight of each clip; None is equal weights.
    """
    scores_nk = np.asarray(scores_nk, np.float64)
    share_n = np.ones(len(scores_nk)) if weights_n is None else np.asarray(weights_n, np.float64)
    share_n = share_n / share_n.sum()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        inverse, bias_k = parameters[0], parameters[1:]
        logits_nk = inverse * scores_nk + bias_k
        error_nk = share_n[:, None] * (softmax(logits_nk, axis=1) - targets_nk)
        value = -(share_n[:, None] * targets_nk * log_softmax(logits_nk, axis=1)).sum()
        return value, np.concatenate([[(error_nk * scores_nk).sum()], error_nk.sum(axis=0)])

    bounds = [(1 / HOTTEST, 1 / COLDEST)] + [(None, None)] * targets_nk.shape[1]
    start = np.concatenate([[1.0], np.zeros(targets_nk.shape[1])])
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
    return Calibration(1 / float(fitted.x[0]), fitted.x[1:] - fitted.x[1:].mean())


def calibrated_left_out(
    scores_nk: np.ndarray,
    targets_nk: np.ndarray,
    speakers_n: Sequence[str] | np.ndarray,
    weights_n: np.ndarray | None = None,
) -> np.ndarray:
    """Out-of-fold logits [N, K], each by a calibration without the clip's speaker; arguments as in `calibrate`."""
    fold_n, logits_nk = speaker_folds(speakers_n), np.zeros(targets_nk.shape)
    for fold in range(fold_n.max() + 1):
        out_n = fold_n == fold
        some_n = None if weights_n is None else np.asarray(weights_n)[~out_n]
        logits_nk[out_n] = calibrate(scores_nk[~out_n], targets_nk[~out_n], some_n).logits(scores_nk[out_n])
    return logits_nk
