"""Metrics of predicted distributions against human references: one definition each; those of a set are in `pooled.py`.

References are never smoothed. Arrays are float64 [N, K], rows sum to one.

Ties. A prediction names its first largest class (in the order of `classes`). Where several classes of a
reference are largest, each counts as right: the reference takes the predicted class if it is one of them,
else the first of them. Accuracy, UAR, F1 and the top-label calibration use these labels, which flatter where ties are
many. `accuracy_argmax` takes the first largest class on both sides, as numpy's argmax and most published tables do.
"""

from __future__ import annotations

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


DIVERGENCES = {"js": js_divergence, "js_distance": js_distance, "bc": bhattacharyya}


def hard_labels(references_nk: np.ndarray, probs_nk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class indices (reference_n, predicted_n) under the tie rule at the top of this file."""
    predicted_n = _largest(probs_nk).argmax(axis=1)
    largest_nk = _largest(references_nk)
    right_n = largest_nk[np.arange(len(predicted_n)), predicted_n]
    return np.where(right_n, predicted_n, largest_nk.argmax(axis=1)), predicted_n


def _largest(p_nk: np.ndarray) -> np.ndarray:
    # Shares that are equal on paper may differ in their last bit.
    return np.isclose(p_nk, p_nk.max(axis=1, keepdims=True), rtol=0, atol=1e-9)


def confidence_bins(confidence_n: np.ndarray) -> np.ndarray:
    """Index of the bin [0, 0.1), [0.1, 0.2), ..., [0.9, 1] of each probability."""
    return np.digitize(confidence_n, np.linspace(0, 1, BINS + 1)[1:-1])


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


def reliability(references_nk: np.ndarray, probs_nk: np.ndarray) -> Reliability:
    """The reliability diagram of the predicted top class."""
    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    row_n = np.arange(len(predicted_n))
    confidence_n = probs_nk[row_n, predicted_n]
    bin_n = confidence_bins(confidence_n)
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
    return {name: divergence(references_nk, probs_nk) for name, divergence in DIVERGENCES.items()} | {
        "accuracy": right_n.astype(float) if top_label else nothing_n,
        "accuracy_argmax": right_argmax_n.astype(float) if top_label else nothing_n,
    }
