"""How far a predicted distribution is from what the listeners heard: one definition for each metric.

References are never smoothed. Arrays are float64 [N, K], rows sum to one.

Ties. A prediction names its first largest class (in the order of `classes`). Where several classes of a
reference are largest, each counts as right: the reference takes the predicted class if it is one of them,
else the first of them. Accuracy, UAR, F1 and the top-label calibration use these labels, which flatter where ties are
many. `accuracy_argmax` takes the first largest class on both sides, as numpy's argmax and most published tables do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr

POINTWISE = ("js", "js_distance", "bc", "accuracy", "accuracy_argmax")
BINS = 10  # of the calibration error, equally wide

DEFINITIONS = {
    "js": "Jensen-Shannon divergence, base 2, between 0 (equal) and 1 (disjoint); mean over utterances",
    "js_distance": "square root of the Jensen-Shannon divergence in nats, as scipy; mean over utterances",
    "bc": "Bhattacharyya coefficient, sum of sqrt(p q), 1 for equal distributions; mean over utterances",
    "r2": "coefficient of determination over utterances for each class, then the mean over the classes "
    "whose references vary",
    "ece": f"expected calibration error of the top label, {BINS} equal bins; right means that the class is "
    "among the reference's largest",
    "ece_soft": "the same; the target is the share that the reference gives to the predicted top class",
    "accuracy": "share of utterances whose predicted class is the reference's largest; any of tied top classes counts",
    "accuracy_argmax": "the same, argmax against argmax; of a reference's tied top classes only the first in the order "
    "of the classes counts",
    "uar": "recall averaged over the classes that are the label of a reference; here and in F1 any of tied top classes "
    "counts",
    "macro_f1": "F1 averaged over the classes that are the label of a reference or of a prediction",
    "weighted_f1": "F1 averaged over classes, weighted by the number of references with that label",
    "ambiguity": "entropy of the reference over log K, K the number of classes: 0 unanimous, 1 uniform",
}


def js_divergence(p_nk: np.ndarray, q_nk: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits, 1/2 KL(p, m) + 1/2 KL(q, m) with m = (p + q) / 2 (Lin, 1991).

    Args:
        p_nk, q_nk: distributions [..., K]; zeros are allowed.

    Returns:
        float64 [...] in [0, 1].
    """
    m_nk = (p_nk + q_nk) / 2
    nats_n = (rel_entr(p_nk, m_nk) + rel_entr(q_nk, m_nk)).sum(axis=-1) / 2
    return np.clip(nats_n / np.log(2), 0.0, 1.0)


def js_distance(p_nk: np.ndarray, q_nk: np.ndarray) -> np.ndarray:
    """Square root of the Jensen-Shannon divergence in nats, in [0, sqrt(ln 2)].

    It equals `scipy.spatial.distance.jensenshannon`, which much of the literature reports. The mean of
    distances cannot be computed from the mean divergence, so both are reported.
    """
    return np.sqrt(js_divergence(p_nk, q_nk) * np.log(2))


def bhattacharyya(p_nk: np.ndarray, q_nk: np.ndarray) -> np.ndarray:
    """Bhattacharyya coefficient, sum over k of sqrt(p q): [..., K] -> [...] in [0, 1]."""
    return np.clip(np.sqrt(p_nk * q_nk).sum(axis=-1), 0.0, 1.0)


def r2_by_class(references_nk: np.ndarray, probs_nk: np.ndarray) -> np.ndarray:
    """Coefficient of determination of each class over utterances.

    Returns:
        float64 [K]; NaN where the references of a class do not vary, because R2 has no meaning there.
    """
    from sklearn.metrics import r2_score  # a second to import, and training needs only the divergences above

    r2_k = np.full(references_nk.shape[1], np.nan)
    for k in np.flatnonzero(np.ptp(references_nk, axis=0) > 1e-12):
        r2_k[k] = r2_score(references_nk[:, k], probs_nk[:, k])
    return r2_k


def hard_labels(references_nk: np.ndarray, probs_nk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class indices (reference_n, predicted_n) under the tie rule at the top of this file."""
    predicted_n = _largest(probs_nk).argmax(axis=1)
    largest_nk = _largest(references_nk)
    hit_n = largest_nk[np.arange(len(predicted_n)), predicted_n]
    return np.where(hit_n, predicted_n, largest_nk.argmax(axis=1)), predicted_n


def _largest(p_nk: np.ndarray) -> np.ndarray:
    # Shares that are equal on paper may differ in their last bit.
    return np.isclose(p_nk, p_nk.max(axis=1, keepdims=True), rtol=0, atol=1e-9)


class Reliability(NamedTuple):
    """The predicted top class in equal bins of its probability; each array is [BINS], NaN for empty bins.

    Attributes:
        n: utterances in the bin.
        confidence: mean probability of the predicted top class.
        accuracy: share of them that are right.
        reference: mean share that the reference gives to the predicted top class.
    """

    n: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    reference: np.ndarray

    def error(self, target_b: np.ndarray) -> float:
        """sum over bins of n_b / N |mean confidence_b - mean target_b| (Naeini et al., 2015)."""
        return float(np.nansum(self.n * np.abs(self.confidence - target_b)) / self.n.sum())


def reliability(references_nk: np.ndarray, probs_nk: np.ndarray) -> Reliability:
    """Bins [0, .1), [.1, .2), ..., [.9, 1] of the predicted top class's probability."""
    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    row_n = np.arange(len(predicted_n))
    confidence_n = probs_nk[row_n, predicted_n]
    bin_n = np.digitize(confidence_n, np.linspace(0, 1, BINS + 1)[1:-1])
    n_b = np.bincount(bin_n, minlength=BINS)

    def mean_b(values_n: np.ndarray) -> np.ndarray:
        sums_b = np.bincount(bin_n, weights=values_n, minlength=BINS)
        return np.divide(sums_b, n_b, out=np.full(BINS, np.nan), where=n_b > 0)

    right_n = (reference_n == predicted_n).astype(float)
    return Reliability(n_b, mean_b(confidence_n), mean_b(right_n), mean_b(references_nk[row_n, predicted_n]))


def pointwise(references_nk: np.ndarray, probs_nk: np.ndarray, top_label: bool = True) -> dict[str, np.ndarray]:
    """The metrics that are means over utterances, before the mean, each [N]: POINTWISE.

    Args:
        top_label: False for predictions without a largest class (the uniform one); accuracies are then NaN.
    """
    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    right_n = reference_n == predicted_n
    right_argmax_n = _largest(references_nk).argmax(axis=1) == predicted_n
    nothing_n = np.full(len(right_n), np.nan)
    return {
        "js": js_divergence(references_nk, probs_nk),
        "js_distance": js_distance(references_nk, probs_nk),
        "bc": bhattacharyya(references_nk, probs_nk),
        "accuracy": right_n.astype(float) if top_label else nothing_n,
        "accuracy_argmax": right_argmax_n.astype(float) if top_label else nothing_n,
    }


def pooled(references_nk: np.ndarray, probs_nk: np.ndarray, top_label: bool = True) -> dict[str, float]:
    """The metrics that exist only for a set of utterances: r2, ece, ece_soft, uar, macro_f1, weighted_f1.

    Returns:
        NaN where a metric has no meaning: r2 when no class varies, and all that need a predicted class
        when `top_label` is False.
    """
    from sklearn.metrics import f1_score, recall_score

    r2_k = r2_by_class(references_nk, probs_nk)
    scores = {"r2": float(np.nanmean(r2_k)) if not np.isnan(r2_k).all() else np.nan}
    if not top_label:
        return scores | dict.fromkeys(("ece", "ece_soft", "uar", "macro_f1", "weighted_f1"), np.nan)
    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    bins = reliability(references_nk, probs_nk)

    def f1(labels: np.ndarray, average: str) -> float:
        return float(f1_score(reference_n, predicted_n, labels=labels, average=average, zero_division=0))

    heard = np.unique(reference_n)
    named = np.union1d(reference_n, predicted_n)
    uar = recall_score(reference_n, predicted_n, labels=heard, average="macro", zero_division=0)
    return scores | {
        "ece": bins.error(bins.accuracy),
        "ece_soft": bins.error(bins.reference),
        "uar": float(uar),
        "macro_f1": f1(named, "macro"),
        "weighted_f1": f1(named, "weighted"),
    }


def by_class(references_nk: np.ndarray, probs_nk: np.ndarray, classes: Sequence[str]) -> dict[str, dict]:
    """Of each class: mean reference, mean prediction, r2, references with that label, recall, f1."""
    from sklearn.metrics import f1_score, recall_score

    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    every = np.arange(len(classes))
    support_k = np.bincount(reference_n, minlength=len(classes))
    # zero_division: a class that nobody heard has no recall, and no F1 unless it was predicted.
    recall_k = recall_score(reference_n, predicted_n, labels=every, average=None, zero_division=np.nan)
    f1_k = f1_score(reference_n, predicted_n, labels=every, average=None, zero_division=np.nan)
    r2_k = r2_by_class(references_nk, probs_nk)
    return {
        name: {
            "mean_reference": float(references_nk[:, k].mean()),
            "mean_predicted": float(probs_nk[:, k].mean()),
            "r2": float(r2_k[k]),
            "support": int(support_k[k]),
            "recall": float(recall_k[k]),
            "f1": float(f1_k[k]),
        }
        for k, name in enumerate(classes)
    }
