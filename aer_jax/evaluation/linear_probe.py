"""Linear probe of a frozen encoder's features, fitted to the optimum.

Multinomial logistic regression on soft targets, with an L2 penalty: the probe that fine-tuning has to beat. With the
penalty chosen on speakers left out in turns, and a temperature that undoes what the penalty does to the sharpness, it
is the readout of a run without epochs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.projection import Projection, principal_axes

VERSION = 2  # of the probe: changes when its numbers would
# Weights of the penalty. The inputs of a clip have a mean square sum of 1, so these mean the same for any number of
# features.
L2 = (5e-6, 1e-5, 2e-5, 4e-5, 8e-5, 1.6e-4, 3.2e-4, 6.4e-4)
FOLDS = 5
THREADS = 2**24  # coordinates from which threads make a fit faster


@dataclass(frozen=True)
class LinearProbe:
    """A fitted model: softmax((x - mean) / deviation kernel + bias).

    Attributes:
        mean_f, deviation_f: of the features it was fitted to.
        kernel_fk, bias_k: of the standardised features.
        l2: the weight of the penalty that was chosen.
    """

    mean_f: np.ndarray
    deviation_f: np.ndarray
    kernel_fk: np.ndarray
    bias_k: np.ndarray
    l2: float

    def logits(self, features_nf: np.ndarray) -> np.ndarray:
        """float64 [N, K]."""
        return (features_nf - self.mean_f) / self.deviation_f @ self.kernel_fk + self.bias_k

    def __call__(self, features_nf: np.ndarray) -> np.ndarray:
        """Distributions, float64 [N, K]."""
        return softmax(self.logits(features_nf), axis=1)


def fit(
    features_nf: np.ndarray,
    targets_nk: np.ndarray,
    l2s: tuple[float, ...],
    weights_n: np.ndarray | None = None,
    scale_f: np.ndarray | None = None,
) -> list[LinearProbe]:
    """Fit a probe for each penalty to features, which are standardised first.

    Args:
        weights_n: weight of each clip; None is equal weights.
        scale_f: what each standardised feature is multiplied by before its weight is penalised; None is 1/sqrt(F).
    """
    projection, x_nr = principal_axes(features_nf, scale_f)
    return [expand(probe, projection) for probe in fit_coordinates(x_nr, targets_nk, l2s, weights_n)]


def fit_coordinates(
    x_nr: np.ndarray, targets_nk: np.ndarray, l2s: tuple[float, ...], weights_n: np.ndarray | None = None
) -> list[LinearProbe]:
    """Fit a probe for each penalty to coordinates along principal axes, which are not standardised."""
    probes, start = [], None
    # Small matrix products are slower with threads.
    with threadpool_limits(1 if x_nr.size < THREADS else None, "blas"):
        penalties = tqdm(sorted(l2s, reverse=True), "fit, penalties", delay=2, leave=False)
        for l2 in penalties:  # each starts at the optimum of the stronger one
            kernel_rk, bias_k = start = logistic_regression(x_nr, targets_nk, l2, start, weights_n)
            probes.append(LinearProbe(np.zeros(1), np.ones(1), kernel_rk, bias_k, l2))
    return probes


Solver = Callable[..., list[LinearProbe]]  # `fit` or `fit_coordinates`


def make_solver(projection: Projection | None, scale_f: np.ndarray | None = None) -> Solver:
    """`fit` of features, or `fit_coordinates` where a projection made coordinates of them."""
    return functools.partial(fit, scale_f=scale_f) if projection is None else fit_coordinates


def expand(probe: LinearProbe, projection: Projection | None) -> LinearProbe:
    """Convert a probe of projected coordinates to one of features; unchanged without a projection."""
    if projection is None:
        return probe
    kernel_fk = projection.scale_f[:, None] * (projection.axes_fr @ probe.kernel_fk)
    return LinearProbe(projection.mean_f, projection.deviation_f, kernel_fk, probe.bias_k, probe.l2)


def logistic_regression(
    x_nf: np.ndarray,
    targets_nk: np.ndarray,
    l2: float,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    weights_n: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise (weighted) mean cross entropy + l2 / 2 |kernel|^2; the bias is free. Convex, by L-BFGS.

    scikit-learn's has no soft targets; with each clip once per class it needs 17 to 95 times as long for the same.

    Returns:
        kernel [F, K] and bias [K].
    """
    n, features = x_nf.shape
    classes = targets_nk.shape[1]
    share_n1 = np.full((n, 1), 1 / n) if weights_n is None else (weights_n / weights_n.sum())[:, None]
    # L-BFGS converges fast where curvatures are equal; along principal axes they are about the squares of `size_f1`.
    kind = x_nf.dtype  # large coordinates come in float32 and stay in it
    size_f1 = np.sqrt((share_n1.astype(kind) * x_nf**2).sum(axis=0) / classes + l2)[:, None]
    x_nf = x_nf / size_f1[:, 0]
    l2_f1 = l2 / size_f1**2

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(features + 1, classes)
        kernel_fk = parameters[:-1]
        log_p_nk = log_softmax(x_nf @ kernel_fk.astype(kind) + parameters[-1], axis=1)
        error_nk = share_n1 * (np.exp(log_p_nk) - targets_nk)
        gradient = np.vstack([x_nf.T @ error_nk.astype(kind) + l2_f1 * kernel_fk, error_nk.sum(axis=0)])
        return -(share_n1 * targets_nk * log_p_nk).sum() + (l2_f1 * kernel_fk**2).sum() / 2, gradient.ravel()

    if start is None:
        start = np.zeros((features, classes)), np.zeros(classes)
    flat_start = np.vstack([start[0] * size_f1, start[1]]).ravel()
    options = {"maxiter": 2000, "maxcor": 20, "ftol": 1e-12 if kind == np.float64 else 1e-9, "gtol": 1e-7}
    best = minimize(objective, flat_start, jac=True, method="L-BFGS-B", options=options).x.reshape(-1, classes)
    return best[:-1] / size_f1, best[-1]


def choose_l2(
    features_nf: np.ndarray,
    targets_nk: np.ndarray,
    validation_mf: np.ndarray,
    validation_mk: np.ndarray,
    solver: Solver = fit,
) -> LinearProbe:
    """The probe fitted to the training split with the L2 of lowest mean JS on the validation split.

    Args:
        features_nf, targets_nk: of the training split; targets are distributions.
        validation_mf, validation_mk: of the validation split.
        solver: `fit`, or `fit_coordinates` where coordinates take the place of features.
    """
    probes = solver(features_nf, targets_nk, L2)
    return min(probes, key=lambda probe: js_divergence(validation_mk, probe(validation_mf)).mean())


def fit_probe(
    features_nf: np.ndarray,
    targets_nk: np.ndarray,
    validation_mf: np.ndarray,
    validation_mk: np.ndarray,
    solver: Solver = fit,
) -> LinearProbe:
    """`choose_l2`, then refitted to training and validation split together; same arguments."""
    l2 = choose_l2(features_nf, targets_nk, validation_mf, validation_mk, solver).l2
    both_nf, both_nk = np.concatenate([features_nf, validation_mf]), np.concatenate([targets_nk, validation_mk])
    return solver(both_nf, both_nk, (l2,))[0]


def left_out(
    features_nf: np.ndarray,
    targets_nk: np.ndarray,
    speakers_n: Sequence[str] | np.ndarray,
    weights_n: np.ndarray | None = None,
    progress: Callable[[range], Iterable[int]] = iter,
    solver: Solver = fit,
) -> np.ndarray:
    """Out-of-fold predictions for each penalty, in up to `FOLDS` folds of speakers.

    Args:
        features_nf, targets_nk: of all clips that may be learned from.
        speakers_n: the speaker of each; at least two speakers.
        weights_n: weight of each clip; None is equal weights.
        progress: shows the folds that it is given, for instance tqdm.
        solver: see `choose_l2`.

    Returns:
        logits [len(L2), N, K].
    """
    fold_n = speaker_folds(speakers_n)
    logits_lnk = np.zeros((len(L2), *targets_nk.shape))
    for fold in progress(range(fold_n.max() + 1)):
        out_n = fold_n == fold
        some_n = None if weights_n is None else weights_n[~out_n]
        for probe in solver(features_nf[~out_n], targets_nk[~out_n], L2, some_n):
            logits_lnk[L2.index(probe.l2), out_n] = probe.logits(features_nf[out_n])
    return logits_lnk


def speaker_folds(speakers_n: Sequence[str] | np.ndarray) -> np.ndarray:
    """The fold of each clip, int [N]: up to `FOLDS` folds of whole speakers, the same for the same names."""
    names, speaker_n = np.unique(np.asarray(speakers_n), return_inverse=True)
    return (np.random.default_rng(0).permutation(len(names)) % min(FOLDS, len(names)))[speaker_n]


def temperature(logits_nk: np.ndarray, targets_nk: np.ndarray) -> tuple[float, float]:
    """The temperature T (Guo et al., 2017) with which softmax(logits / T) has the lowest mean JS, and that JS."""

    def js(log_t: float) -> float:
        return js_divergence(targets_nk, softmax(logits_nk / np.exp(log_t), axis=1)).mean()

    best = minimize_scalar(js, bounds=(-2, 2), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x)), float(best.fun)
