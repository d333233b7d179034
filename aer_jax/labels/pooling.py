"""What is a synthetic vote worth beside a human one? The weight with which people's held-out votes are predicted best.

Pooled, an utterance's distribution is p = (h + sum_m w_m s_m) / (H + sum_m w_m S_m), with h human and s_m synthetic
counts and H, S_m their sums; one source m is all synthetic votes together, or each listener is one. One human vote k is
held out and predicted by what is left, p^k, and scored by Brier's rule |p^k - e_k|^2 (Brier, 1950), which is least in
expectation where p is the distribution that votes are drawn from, and stays finite where p^k gives a vote no chance.
The loss of an utterance is the mean over its H votes, the loss of w the mean over utterances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

MOST = 100.0  # a weight as large as this is synthetic votes alone


def held_out_loss(
    human_nk: np.ndarray, synthetic_nmk: np.ndarray, weights_m: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Brier score of held-out human votes, leave one out.

    Args:
        human_nk: whole human votes, at least two an utterance.
        synthetic_nmk: counts or shares of M sources of synthetic votes.
        weights_m: what a vote of each source counts; np.inf, for one source, predicts from synthetic votes alone.

    Returns:
        the loss of each utterance [N] in [0, 2], and its slope [N, M].
    """
    weights_m = np.asarray(weights_m, float)
    alone = np.isinf(weights_m)
    size_m = np.where(alone, 1.0, weights_m)
    pooled_nk = np.einsum("m,nmk->nk", size_m, synthetic_nmk) + (0.0 if alone.any() else human_nk)
    held_kk = np.zeros((human_nk.shape[1],) * 2) if alone.any() else np.eye(human_nk.shape[1])
    left_nhk = np.maximum(pooled_nk[:, None] - held_kk, 0.0)  # h: the label held out; clipped where nobody chose it
    total_nh = left_nhk.sum(axis=2)
    p_nhk = left_nhk / np.maximum(total_nh, 1e-12)[:, :, None]
    apart_nhk = p_nhk - np.eye(human_nk.shape[1])
    share_nh = human_nk / human_nk.sum(axis=1, keepdims=True)
    loss_n = np.einsum("nh,nhk,nhk->n", share_nh, apart_nhk, apart_nhk)
    # d p / d w_m = (s_m - p S_m) / total
    pull_nh = share_nh / np.maximum(total_nh, 1e-12)
    along_nm = np.einsum("nh,nhk,nmk->nm", pull_nh, apart_nhk, synthetic_nmk)
    back_n = np.einsum("nh,nhk,nhk->n", pull_nh, apart_nhk, p_nhk)
    return loss_n, 2 * (along_nm - back_n[:, None] * synthetic_nmk.sum(axis=2))


def learn_weights(human_nk: np.ndarray, synthetic_nmk: np.ndarray) -> np.ndarray:
    """The weights [M] in [0, MOST] with the lowest mean held-out loss; L-BFGS-B from three starts.

    Args:
        human_nk: whole human votes of the utterances to learn from, at least two each.
        synthetic_nmk: of the same utterances.
    """

    def mean(weights_m: np.ndarray) -> tuple[float, np.ndarray]:
        loss_n, slope_nm = held_out_loss(human_nk, synthetic_nmk, weights_m)
        return loss_n.mean(), slope_nm.mean(axis=0)

    sources = synthetic_nmk.shape[1]
    found = [
        minimize(mean, np.full(sources, start), jac=True, method="L-BFGS-B", bounds=[(0, MOST)] * sources,
                 options={"ftol": 1e-14, "gtol": 1e-9})
        for start in (0.0, 1.0, 10.0)
    ]  # fmt: skip
    return min(found, key=lambda result: result.fun).x
