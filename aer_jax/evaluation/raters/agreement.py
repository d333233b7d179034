"""Agreement of synthetic with human distributions, utterance by utterance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from aer_jax.evaluation import summary
from aer_jax.evaluation.baselines import BASELINES, best_constant, halves, split_half
from aer_jax.evaluation.intervals import sums_interval
from aer_jax.evaluation.metrics import DIVERGENCES, js_divergence


class Shuffled(NamedTuple):
    """Mean JS divergence (base 2) as annotated, the same when shuffled (mean), and the permutation p-value."""

    js: float
    js_shuffled: float
    p: float


def shuffled_agreement(
    human_nk: np.ndarray, synthetic_nk: np.ndarray, permutations: int = 999, seed: int = 0
) -> Shuffled:
    """Permutation test of agreement: are the votes about their utterances?

    The synthetic distributions are shuffled over the utterances; p = (1 + shuffles that agree at least as well)
    / (1 + shuffles), one-sided (Phipson and Smyth, 2010).
    """
    js = js_divergence(human_nk, synthetic_nk).mean()
    rng = np.random.default_rng(seed)
    shuffled = np.array([js_divergence(human_nk, rng.permutation(synthetic_nk)).mean() for _ in range(permutations)])
    # Sums in another order differ by rounding; a tie counts as agreeing as well.
    p = (1 + (shuffled <= js + 1e-12).sum()) / (1 + permutations)
    return Shuffled(float(js), float(shuffled.mean()), float(p))


def against(human_nk: np.ndarray, other: np.ndarray, speakers_n: np.ndarray, classes: tuple[str, ...]) -> dict:
    """One row: js (base 2), js_distance, bc, the correlation of each emotion, and intervals over speakers.

    Args:
        human_nk: the references.
        other: distributions [N, K], or one [K] for all utterances.

    Returns:
        n, n_speakers, the means, correlation {class: r over utterances, None where one side does not vary},
        correlation_mean over the classes that have one, and ci of all of them.
    """
    other_nk = np.broadcast_to(other, human_nk.shape)
    row = summary.summary(_measures(human_nk, other_nk), speakers_n)
    r_k = correlations(human_nk, other_nk)
    ci: dict[str, tuple[float, float] | None] = {}
    for k, name in enumerate(classes):
        ci[name] = None
        if np.isfinite(r_k[k]):
            ci[name] = sums_interval(_products(human_nk[:, k], other_nk[:, k]), speakers_n, _pearson, (-1, 1))
    row["ci"]["correlation"] = ci
    return row | _correlation_row(r_k, classes)


def correlations(human_nk: np.ndarray, other_nk: np.ndarray) -> np.ndarray:
    """Pearson's r of each label's share over utterances [K]; NaN where a side does not vary."""
    r_k = np.full(human_nk.shape[1], np.nan)
    for k in np.flatnonzero((np.ptp(human_nk, axis=0) > 1e-12) & (np.ptp(other_nk, axis=0) > 1e-12)):
        r_k[k] = np.corrcoef(human_nk[:, k], other_nk[:, k])[0, 1]
    return r_k


def baselines(
    human_nk: np.ndarray, whole_nk: np.ndarray, speakers_n: np.ndarray, classes: tuple[str, ...]
) -> dict[str, dict]:
    """Baselines of agreement: uniform, best_constant, and split_half of the human raters."""
    k = human_nk.shape[1]
    constants = {"uniform": np.full(k, 1 / k), "best_constant": best_constant(human_nk)}
    rows = {name: against(human_nk, p_k, speakers_n, classes) for name, p_k in constants.items()}
    usable_n = whole_nk.sum(axis=1) >= 2
    if usable_n.any():
        r_k = np.mean([correlations(*cut) for cut in halves(whole_nk[usable_n])], axis=0)
        rows["split_half"] = summary.summary(split_half(whole_nk), speakers_n) | _correlation_row(r_k, classes)
    return {name: row | {"note": BASELINES[name].note} for name, row in rows.items()}


def by_ambiguity(
    human_nk: np.ndarray, synthetic_nk: np.ndarray, whole_nk: np.ndarray, speakers_n: np.ndarray
) -> dict[str, dict]:
    """Agreement and baselines by level of ambiguity.

    best_constant is one distribution for all utterances, not one per level.
    """
    others = {
        "uniform": js_divergence(human_nk, np.full_like(human_nk, 1 / human_nk.shape[1])),
        "best_constant": js_divergence(human_nk, best_constant(human_nk)),
        "split_half": split_half(whole_nk)["js"],
    }
    compared = {name: summary.by_ambiguity({"js": js_n}, speakers_n, human_nk) for name, js_n in others.items()}
    return {
        level: row | {"baselines": {name: {"js": rows[level]["js"]} for name, rows in compared.items()}}
        for level, row in summary.by_ambiguity(_measures(human_nk, synthetic_nk), speakers_n, human_nk).items()
    }


def _measures(human_nk: np.ndarray, other_nk: np.ndarray) -> dict[str, np.ndarray]:
    return {name: divergence(human_nk, other_nk) for name, divergence in DIVERGENCES.items()}


def _correlation_row(r_k: np.ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    some = r_k[np.isfinite(r_k)]
    by_class = {name: float(r) if np.isfinite(r) else None for name, r in zip(classes, r_k, strict=True)}
    return {"correlation": by_class, "correlation_mean": float(some.mean()) if len(some) else None}


def _products(x_n: np.ndarray, y_n: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(x_n), x_n, y_n, x_n * x_n, y_n * y_n, x_n * y_n])


def _pearson(sums_rm: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = sums_rm.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))
