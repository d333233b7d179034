"""What a linear model makes of the frozen speech encoder: the baseline that fine-tuning has to beat.

Multinomial logistic regression on mean and standard deviation over time of every layer, standardised on the training
split, with the votes' distributions as soft targets. Its one hyper-parameter, the weight of the L2 penalty, is chosen
on the validation split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from aer_jax.evaluation.metrics import js_divergence

VERSION = 1  # changes when the numbers would
L2 = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        mean_f, deviation_f: of the training features.
        kernel_fk, bias_k: softmax(x kernel + bias) is predicted, x standardised.
        l2: the weight of the penalty that was chosen.
    """

    mean_f: np.ndarray
    deviation_f: np.ndarray
    kernel_fk: np.ndarray
    bias_k: np.ndarray
    l2: float

    def __call__(self, features_nf: np.ndarray) -> np.ndarray:
        """Distributions, float64 [N, K]."""
        return softmax(self._standardised(features_nf) @ self.kernel_fk + self.bias_k, axis=1)

    def _standardised(self, features_nf: np.ndarray) -> np.ndarray:
        return (features_nf - self.mean_f) / self.deviation_f


def fit_probe(
    features_nf: np.ndarray, targets_nk: np.ndarray, validation_mf: np.ndarray, validation_mk: np.ndarray
) -> LinearProbe:
    """Fit a probe for each weight of `L2` and keep the one with the lowest mean JS on the validation split.

    Args:
        features_nf, targets_nk: of the training split; targets are distributions.
        validation_mf, validation_mk: of the validation split.
    """
    mean_f, deviation_f = features_nf.mean(axis=0), features_nf.std(axis=0) + 1e-5
    x_nf = (features_nf - mean_f) / deviation_f
    # A penalised solution lies in the span of the clips: with r <= N orthonormal coordinates there the fit is the same,
    # and cheap where features are many.
    square_r, vector_nr = np.linalg.eigh((x_nf @ x_nf.T).astype(np.float64))
    there_r = square_r > 1e-9 * square_r.max()
    vector_nr, size_r = vector_nr[:, there_r], np.sqrt(square_r[there_r])
    axes_fr, x_nr = x_nf.T @ (vector_nr / size_r), vector_nr * size_r
    probes = []
    start = None
    for l2 in sorted(L2, reverse=True):  # each begins where the stiffer one ended
        kernel_rk, bias_k = start = logistic_regression(x_nr, targets_nk, l2, start)
        probes.append(LinearProbe(mean_f, deviation_f, axes_fr @ kernel_rk, bias_k, l2))
    return min(probes, key=lambda probe: js_divergence(validation_mk, probe(validation_mf)).mean())


def logistic_regression(
    x_nf: np.ndarray, targets_nk: np.ndarray, l2: float, start: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise mean cross entropy + l2 / 2 |kernel|^2; the bias is free. Convex, by L-BFGS.

    Returns:
        kernel [F, K] and bias [K].
    """
    n, features = x_nf.shape
    classes = targets_nk.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(features + 1, classes)
        kernel_fk = parameters[:-1]
        log_p_nk = log_softmax(x_nf @ kernel_fk + parameters[-1], axis=1)
        error_nk = (np.exp(log_p_nk) - targets_nk) / n
        gradient = np.vstack([x_nf.T @ error_nk + l2 * kernel_fk, error_nk.sum(axis=0)])
        return -(targets_nk * log_p_nk).sum() / n + l2 / 2 * (kernel_fk**2).sum(), gradient.ravel()

    begin = np.zeros((features + 1, classes)) if start is None else np.vstack(start)
    options = {"maxiter": 2000, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-7}
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(begin.shape)
    return found[:-1], found[-1]
