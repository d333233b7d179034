"""Metrics of a set of utterances (R2, calibration errors, recall, F1), also of resampled speakers.

Each is a function of sums over utterances. The sums of each speaker are taken once and added up as often as the speaker
counts: the same numbers as scoring those utterances one resample after another, which scikit-learn would need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from aer_jax.evaluation.metrics import BINS, confidence_bins, hard_labels, pointwise

POOLED = ("r2", "ece", "ece_soft", "uar", "macro_f1", "weighted_f1")
Sums = Callable[[np.ndarray], np.ndarray]  # values of utterances [N, X] -> their sums in each resample [R, X]


def pooled(references_nk: np.ndarray, probs_nk: np.ndarray, top_label: bool = True) -> dict[str, float]:
    """POOLED of all utterances; arguments as in `resampled`.

    Returns:
        NaN where a metric has no meaning: r2 when no class varies, and all that need a predicted class
        when `top_label` is False.
    """
    values = resampled(references_nk, probs_nk, np.zeros(len(probs_nk), int), np.ones((1, 1)), top_label)
    return {name: float(values[name][0]) for name in POOLED}


def resampled(
    references_nk: np.ndarray, probs_nk: np.ndarray, speaker_n: np.ndarray, times_rs: np.ndarray, top_label: bool = True
) -> dict[str, np.ndarray]:
    """The means of `metrics.pointwise` and POOLED on each resample of speakers.

    Args:
        references_nk, probs_nk: distributions [N, K].
        speaker_n: index of each utterance's speaker, int [N] below S.
        times_rs: how often each speaker counts in each resample, [R, S]; a row of ones is the data itself.
        top_label: False for predictions without a largest class; what needs one is then NaN.

    Returns:
        float64 [R] by name; NaN where a metric has no meaning.
    """

    def sums(values_nx: np.ndarray) -> np.ndarray:
        sums_sx = np.zeros((times_rs.shape[1], values_nx.shape[1]))
        np.add.at(sums_sx, speaker_n, values_nx)
        return times_rs @ sums_sx

    size_r = sums(np.ones((len(speaker_n), 1)))[:, 0]
    means = pointwise(references_nk, probs_nk, top_label)
    values = {name: sums(values_n[:, None])[:, 0] / size_r for name, values_n in means.items()}
    scores = _class_scores(references_nk, probs_nk, sums)
    values["r2"] = _nanmean(scores.r2_rk)
    if not top_label:
        return values | {name: np.full(len(times_rs), np.nan) for name in POOLED[1:]}
    return (
        values
        | _calibration_errors(references_nk, probs_nk, sums)
        | {
            "uar": _nanmean(scores.recall_rk),
            "macro_f1": _nanmean(scores.f1_rk),
            "weighted_f1": (np.nan_to_num(scores.f1_rk) * scores.support_rk).sum(axis=1) / size_r,
        }
    )


def by_class(references_nk: np.ndarray, probs_nk: np.ndarray, classes: Sequence[str]) -> dict[str, dict]:
    """Of each class: mean reference, mean prediction, r2, references with that label, recall, f1."""
    scores = _class_scores(references_nk, probs_nk, lambda values_nx: values_nx.sum(axis=0, keepdims=True))
    return {
        name: {
            "mean_reference": float(references_nk[:, k].mean()),
            "mean_predicted": float(probs_nk[:, k].mean()),
            "r2": float(scores.r2_rk[0, k]),
            "support": int(scores.support_rk[0, k]),
            "recall": float(scores.recall_rk[0, k]),
            "f1": float(scores.f1_rk[0, k]),
        }
        for k, name in enumerate(classes)
    }


class ClassScores(NamedTuple):
    """Scores of each class in each resample, float64 [R, K].

    Attributes:
        support_rk: references with that label.
        recall_rk: NaN where there are none.
        f1_rk: NaN where neither a reference nor a prediction has that label.
        r2_rk: coefficient of determination over utterances; NaN where the references do not vary.
    """

    support_rk: np.ndarray
    recall_rk: np.ndarray
    f1_rk: np.ndarray
    r2_rk: np.ndarray


def _class_scores(references_nk: np.ndarray, probs_nk: np.ndarray, sums: Sums) -> ClassScores:
    n, classes = references_nk.shape
    size_r1 = sums(np.ones((n, 1)))
    spread_rk = sums(references_nk**2) - sums(references_nk) ** 2 / size_r1
    # Below 1e-9 of a mean square is rounding.
    r2_rk = 1 - _ratio(sums((references_nk - probs_nk) ** 2), np.where(spread_rk > 1e-9 * size_r1, spread_rk, 0))
    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    confusion_rkk = sums(np.eye(classes**2)[reference_n * classes + predicted_n]).reshape(-1, classes, classes)
    right_rk = np.einsum("rkk->rk", confusion_rkk)
    support_rk, predicted_rk = confusion_rkk.sum(axis=2), confusion_rkk.sum(axis=1)
    f1_rk = _ratio(2 * right_rk, support_rk + predicted_rk)
    return ClassScores(support_rk, _ratio(right_rk, support_rk), f1_rk, r2_rk)


def _calibration_errors(references_nk: np.ndarray, probs_nk: np.ndarray, sums: Sums) -> dict[str, np.ndarray]:
    """sum over bins of n_b / N |mean confidence_b - mean target_b| (Naeini et al., 2015)."""
    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    row_n = np.arange(len(predicted_n))
    confidence_n = probs_nk[row_n, predicted_n]
    bin_nb = np.eye(BINS)[confidence_bins(confidence_n)]
    size_r = sums(np.ones((len(row_n), 1)))[:, 0]
    targets = {"ece": reference_n == predicted_n, "ece_soft": references_nk[row_n, predicted_n]}
    return {
        name: np.abs(sums(bin_nb * (confidence_n - target_n)[:, None])).sum(axis=1) / size_r
        for name, target_n in targets.items()
    }


def _ratio(above_rk: np.ndarray, below_rk: np.ndarray) -> np.ndarray:
    return np.divide(above_rk, below_rk, out=np.full_like(above_rk, np.nan), where=below_rk > 0)


def _nanmean(values_rk: np.ndarray) -> np.ndarray:
    present_rk = ~np.isnan(values_rk)
    return _ratio(np.where(present_rk, values_rk, 0.0).sum(axis=1), present_rk.sum(axis=1))
