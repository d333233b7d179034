"""Every metric on reweighted speakers, from sums over each speaker: what leaving speakers out gives, without a loop.

The metrics of `metrics.pooled` are no means over utterances, but each is a function of sums over utterances. The sums
of each speaker are taken once, added up as often as the speaker counts, and the function is applied to the result:
the same numbers as scoring those utterances one set of speakers after another.
"""

from __future__ import annotations

import numpy as np

from aer_jax.evaluation.metrics import BINS, hard_labels, pointwise

POOLED = ("r2", "ece", "ece_soft", "uar", "macro_f1", "weighted_f1")


def resampled(
    references_nk: np.ndarray, probs_nk: np.ndarray, speaker_n: np.ndarray, times_rs: np.ndarray, top_label: bool = True
) -> dict[str, np.ndarray]:
    """The metrics of `metrics.pointwise` (their means) and `metrics.pooled` on each resample.

    Args:
        references_nk, probs_nk: distributions [N, K].
        speaker_n: index of each utterance's speaker, int [N] below S.
        times_rs: how often each speaker counts in each resample, int [R, S]; a row of ones is the data itself.
        top_label: False for predictions without a largest class; what needs one is then NaN.

    Returns:
        float64 [R] by name; NaN where a metric has no meaning.
    """
    classes, speakers = references_nk.shape[1], times_rs.shape[1]

    def sums_rx(values_nx: np.ndarray) -> np.ndarray:
        sums_sx = np.zeros((speakers, values_nx.shape[1]))
        np.add.at(sums_sx, speaker_n, values_nx)
        return times_rs @ sums_sx

    means = pointwise(references_nk, probs_nk, top_label)
    size_r1 = sums_rx(np.ones((len(speaker_n), 1)))
    found = {name: sums_rx(values_n[:, None])[:, 0] / size_r1[:, 0] for name, values_n in means.items()}

    y_rk, yy_rk = sums_rx(references_nk), sums_rx(references_nk**2)
    error_rk = sums_rx((references_nk - probs_nk) ** 2)
    spread_rk = yy_rk - y_rk**2 / size_r1
    # A class that does not vary among the drawn has no R2; below 1e-9 of a mean square is rounding.
    varies_rk = spread_rk > 1e-9 * size_r1
    r2_rk = 1 - np.divide(error_rk, spread_rk, out=np.full_like(error_rk, np.nan), where=varies_rk)
    found["r2"] = _nanmean(r2_rk)
    if not top_label:
        return found | {name: np.full(len(times_rs), np.nan) for name in POOLED[1:]}

    reference_n, predicted_n = hard_labels(references_nk, probs_nk)
    row_n = np.arange(len(predicted_n))
    confidence_n = probs_nk[row_n, predicted_n]
    bin_nb = np.eye(BINS)[np.digitize(confidence_n, np.linspace(0, 1, BINS + 1)[1:-1])]
    for name, target_n in (("ece", reference_n == predicted_n), ("ece_soft", references_nk[row_n, predicted_n])):
        found[name] = np.abs(sums_rx(bin_nb * (confidence_n - target_n)[:, None])).sum(axis=1) / size_r1[:, 0]

    pairs_nc = np.eye(classes * classes)[reference_n * classes + predicted_n]
    confusion_rkk = sums_rx(pairs_nc).reshape(-1, classes, classes)
    hit_rk = np.einsum("rkk->rk", confusion_rkk)
    heard_rk, named_rk = confusion_rkk.sum(axis=2), confusion_rkk.sum(axis=1)
    found["uar"] = _nanmean(_ratio(hit_rk, heard_rk))
    f1_rk = _ratio(2 * hit_rk, heard_rk + named_rk)
    found["macro_f1"] = _nanmean(f1_rk)
    found["weighted_f1"] = (np.nan_to_num(f1_rk) * heard_rk).sum(axis=1) / size_r1[:, 0]
    return found


def _ratio(above_rk: np.ndarray, below_rk: np.ndarray) -> np.ndarray:
    return np.divide(above_rk, below_rk, out=np.full_like(above_rk, np.nan), where=below_rk > 0)


def _nanmean(values_rk: np.ndarray) -> np.ndarray:
    there_rk = ~np.isnan(values_rk)
    count_r = there_rk.sum(axis=1)
    sums_r = np.where(there_rk, values_rk, 0.0).sum(axis=1)
    return np.divide(sums_r, count_r, out=np.full(len(sums_r), np.nan), where=count_r > 0)
