"""Weight of a synthetic vote relative to a human one, learned on held-out human votes.

Pooled, an utterance's distribution is p = (h + w s) / (H + w S), with h human and s synthetic counts and H, S their
sums. One human vote k is held out and predicted by what is left, p^k, and scored by Brier's rule |p^k - e_k|^2 (Brier,
1950), which is least in expectation where p is the distribution that votes are drawn from, and stays finite where p^k
gives a vote no chance. The loss of an utterance is the mean over its H votes, the loss of w the mean over utterances.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

MOST = 100.0  # a weight as large as this is synthetic votes alone


def held_out_loss(human_nk: np.ndarray, synthetic_nk: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Brier score of held-out human votes, leave one out.

    Args:
        human_nk: whole human votes, at least two per utterance.
        synthetic_nk: counts or shares of synthetic votes.
        weight: what a synthetic vote counts; np.inf predicts from synthetic votes alone.

    Returns:
        the loss of each utterance [N] in [0, 2], and its derivative by the weight [N].
    """
    alone = np.isinf(weight)
    classes = human_nk.shape[1]
    pooled_nk = (1.0 if alone else weight) * synthetic_nk + (0.0 if alone else human_nk)
    held_kk = np.zeros((classes, classes)) if alone else np.eye(classes)
    left_nhk = np.maximum(pooled_nk[:, None] - held_kk, 0.0)  # h: the label held out; clipped where nobody chose it
    total_nh = left_nhk.sum(axis=2)
    p_nhk = left_nhk / np.maximum(total_nh, 1e-12)[:, :, None]
    apart_nhk = p_nhk - np.eye(classes)
    share_nh = human_nk / human_nk.sum(axis=1, keepdims=True)
    loss_n = np.einsum("nh,nhk,nhk->n", share_nh, apart_nhk, apart_nhk)
    # d p / d w = (s - p S) / total
    pull_nh = share_nh / np.maximum(total_nh, 1e-12)
    along_n = np.einsum("nh,nhk,nk->n", pull_nh, apart_nhk, synthetic_nk)
    back_n = np.einsum("nh,nhk,nhk->n", pull_nh, apart_nhk, p_nhk)
    return loss_n, 2 * (along_n - back_n * synthetic_nk.sum(axis=1))


def learn_weight(human_nk: np.ndarray, synthetic_nk: np.ndarray) -> float:
    """The weight in [0, MOST] with the lowest mean held-out loss; L-BFGS-B from three starts.

    Args:
        human_nk: whole human votes of the utterances to learn from, at least two each.
        synthetic_nk: synthetic votes about the same utterances.
    """

    def mean(weight_1: np.ndarray) -> tuple[float, np.ndarray]:
        loss_n, slope_n = held_out_loss(human_nk, synthetic_nk, float(weight_1[0]))
        return loss_n.mean(), slope_n.mean(keepdims=True)

    results = [
        minimize(mean, [start], jac=True, method="L-BFGS-B", bounds=[(0, MOST)], options={"ftol": 1e-14, "gtol": 1e-9})
        for start in (0.0, 1.0, 10.0)
    ]
    return float(min(results, key=lambda result: result.fun).x[0])
