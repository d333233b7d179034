"""Krippendorff's alpha among human raters, among synthetic listeners, and between the two.

Alpha = 1 - D_o / D_e for nominal data: D_o is how often two votes about the same utterance differ, D_e how often any
two votes differ (Krippendorff, Content Analysis, 2004, chapter 11). 1 is full agreement, 0 what chance would give,
below 0 systematic disagreement. It does not depend on how many vote, which JS does.
"""

from __future__ import annotations

from typing import Any

import krippendorff
import numpy as np

from aer_jax.evaluation.intervals import sums_interval
from aer_jax.labels.votes import normalise

ALPHA = (-np.inf, 1.0)  # the values that alpha can have


def alphas(counts_nk: np.ndarray, votes_nlk: np.ndarray, speakers_n: np.ndarray) -> dict[str, Any]:
    """Alpha of human raters, of synthetic listeners, and of pairs of one of each.

    Args:
        counts_nk: whole human votes.
        votes_nlk: synthetic ones, one-hot or shares, zero where a listener gave none.
        speakers_n: the speaker of each utterance; intervals are over speakers.

    Returns:
        human, synthetic, human_synthetic: {value, ci, utterances}, value None where nothing can be compared.
    """
    synthetic_nk = votes_nlk.sum(axis=1)
    whole = bool(np.isin(votes_nlk, (0.0, 1.0)).all())
    both = (counts_nk.sum(axis=1) > 0) & (synthetic_nk.sum(axis=1) > 0)
    pairs_nm = pair_terms(normalise(counts_nk[both]), normalise(synthetic_nk[both]))
    return {
        "human": _row(count_terms(counts_nk), speakers_n, counts_nk),
        "synthetic": _row(share_terms(votes_nlk), speakers_n, synthetic_nk if whole else None),
        "human_synthetic": _row(pairs_nm, speakers_n[both]),
    }


def count_terms(counts_nk: np.ndarray) -> np.ndarray:
    """What alpha needs of each utterance's vote counts, see `alpha`."""
    voters_n = counts_nk.sum(axis=1)
    agreeing_n = (counts_nk * (counts_nk - 1)).sum(axis=1)
    return _terms(agreeing_n, counts_nk, voters_n)


def share_terms(votes_nlk: np.ndarray) -> np.ndarray:
    """`count_terms` of distributions instead of votes: the expectation over one vote drawn per listener."""
    sums_nk = votes_nlk.sum(axis=1)
    agreeing_n = (sums_nk**2).sum(axis=1) - (votes_nlk**2).sum(axis=(1, 2))
    return _terms(agreeing_n, sums_nk, (votes_nlk.sum(axis=2) > 0).sum(axis=1))


def pair_terms(one_nk: np.ndarray, other_nk: np.ndarray) -> np.ndarray:
    """`count_terms` of two distributions per utterance: the expectation over one vote drawn from each."""
    return np.column_stack([2 * (one_nk * other_nk).sum(axis=1), one_nk + other_nk])


def alpha(sums_rm: np.ndarray) -> np.ndarray:
    """Alpha [R] from sums [R, 1 + K] over utterances: agreeing coincidences, then all coincidences of each label."""
    agreeing_r, label_rk = sums_rm[:, 0], sums_rm[:, 1:]
    n_r = label_rk.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (n_r - agreeing_r) * (n_r - 1) / (n_r**2 - (label_rk**2).sum(axis=1))


def _terms(agreeing_n: np.ndarray, sums_nk: np.ndarray, voters_n: np.ndarray) -> np.ndarray:
    """An utterance with m voters counts as m coincidences; with one alone there is nothing to compare."""
    terms_nm = np.column_stack([agreeing_n / np.maximum(voters_n - 1, 1), sums_nk])
    return np.where(voters_n[:, None] > 1, terms_nm, 0.0)


def _row(terms_nm: np.ndarray, speakers_n: np.ndarray, counts_nk: np.ndarray | None = None) -> dict[str, Any]:
    used = terms_nm[:, 1:].any(axis=1)
    terms_nm, speakers_n = terms_nm[used], speakers_n[used]
    varied = len(terms_nm) > 0 and (terms_nm[:, 1:].sum(axis=0) > 0).sum() > 1
    if not varied:  # one label alone: nothing could have differed
        return {"value": None, "ci": None, "utterances": len(terms_nm)}
    if counts_nk is not None:
        value = krippendorff.alpha(value_counts=counts_nk, level_of_measurement="nominal")
    else:
        value = alpha(terms_nm.sum(axis=0, keepdims=True))[0]
    return {"value": float(value), "ci": sums_interval(terms_nm, speakers_n, alpha, ALPHA), "utterances": len(terms_nm)}
