"""Significance of a difference between two arms: paired tests whose unit is the speaker, and Holm's correction.

The utterances of one speaker resemble each other, so a test that takes them one by one finds differences that other
speakers would not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import permutation_test, wilcoxon

RESAMPLES = 19_999  # up to 14 speakers all 2**S exchanges are counted, which are fewer


class SignFlip(NamedTuple):
    """Mean difference over utterances, its two-sided p, and the least p possible with this number of speakers."""

    difference: float
    p: float
    least: float


def sign_flip(difference_n: np.ndarray, speakers: Sequence[str] | np.ndarray, seed: int = 0) -> SignFlip:
    """Permutation test of paired differences whose unit is the speaker.

    Were the arms alike, a speaker's utterances could as well have had their scores exchanged, all at once, which flips
    the sign of the speaker's sum. p is the share of all 2**S patterns of signs whose mean is at least as far from zero
    as the one observed; where these are more than `RESAMPLES`, of the observed one and as many drawn ones (Phipson and
    Smyth, 2010).

    Args:
        difference_n: score of one arm minus score of the other on the same utterance, float [N].
        speakers: the speaker of each utterance [N].
        seed: of the draws.
    """
    _, speaker_n = np.unique(np.asarray(speakers), return_inverse=True)
    sums_s = np.bincount(speaker_n, weights=difference_n)
    p = 1.0
    if len(sums_s) > 1:
        p = permutation_test(
            (sums_s,),
            # Rounded: sums in another order differ in their last bits, and a tie counts as just as far.
            lambda sums_ps, axis: np.round(np.abs(sums_ps.sum(axis=axis)), 12),
            permutation_type="samples",
            alternative="greater",
            n_resamples=RESAMPLES,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
    least = max(2.0 ** (1 - len(sums_s)), 1 / (RESAMPLES + 1))
    return SignFlip(float(difference_n.mean()), float(p), least)


def wilcoxon_over_speakers(difference_n: np.ndarray, speakers: Sequence[str] | np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on the mean difference of each speaker, as scipy chooses its method.

    A check on `sign_flip`: every speaker counts alike, however many utterances there are. 1 where nothing differs.
    """
    _, speaker_n = np.unique(np.asarray(speakers), return_inverse=True)
    means_s = np.bincount(speaker_n, weights=difference_n) / np.bincount(speaker_n)
    return float(wilcoxon(means_s).pvalue) if np.any(means_s) else 1.0


def holm(p_t: Sequence[float]) -> np.ndarray:
    """P-values adjusted for the number of tests: each times how many are not smaller, made monotone (Holm, 1979).

    Where those below alpha are called significant, the chance of even one false call is at most alpha, however the
    tests depend on each other. SciPy has no Holm; statsmodels has, and checks this in the tests.
    """
    raw_t = np.asarray(p_t, float)
    order_t = np.argsort(raw_t, kind="stable")
    stepped_t = raw_t[order_t] * np.arange(len(raw_t), 0, -1)
    adjusted_t = np.empty_like(raw_t)
    adjusted_t[order_t] = np.minimum(np.maximum.accumulate(stepped_t), 1.0)
    return adjusted_t
