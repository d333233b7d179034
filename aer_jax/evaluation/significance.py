"""Is a difference between two arms more than chance? Paired tests that respect speakers, and Holm's correction.

The utterances of one speaker resemble each other, so a test that deals with them one by one finds differences that
other speakers would not show. Here whole speakers are exchanged between the arms.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import wilcoxon

EXACT = 14  # speakers up to which all 2**S exchanges are counted
DRAWS = 19_999  # beyond


class SignFlip(NamedTuple):
    """Mean difference over utterances, its two-sided p, and the least p that so many speakers can give."""

    difference: float
    p: float
    least: float


def sign_flip(difference_n: np.ndarray, speakers: Sequence[str] | np.ndarray, seed: int = 0) -> SignFlip:
    """Permutation test of paired differences whose unit is the speaker.

    Were the arms alike, a speaker's utterances could as well have had their scores exchanged, all at once, which flips
    the sign of the speaker's sum. p is the share of all 2**S patterns of signs whose mean is at least as far from zero
    as the one observed; beyond `EXACT` speakers, of the observed one and `DRAWS` drawn ones (Phipson and Smyth, 2010).

    Args:
        difference_n: score of one arm minus score of the other on the same utterance, float [N].
        speakers: the speaker of each utterance [N].
        seed: of the draws.
    """
    _, speaker_n = np.unique(np.asarray(speakers), return_inverse=True)
    sums_s = np.bincount(speaker_n, weights=difference_n)
    if len(sums_s) <= EXACT:
        signs_ps = np.array(list(itertools.product((1, -1), repeat=len(sums_s))))
    else:
        drawn_ps = np.random.default_rng(seed).choice((1, -1), size=(DRAWS, len(sums_s)))
        signs_ps = np.concatenate([np.ones((1, len(sums_s)), int), drawn_ps])
    observed = abs(sums_s.sum())
    # Sums in another order differ by rounding; a tie counts as just as far.
    as_far_p = np.abs(signs_ps @ sums_s) >= observed - 1e-12 * max(1.0, np.abs(sums_s).sum())
    least = max(2.0 ** (1 - len(sums_s)), 1 / len(signs_ps))
    return SignFlip(float(difference_n.mean()), float(as_far_p.mean()), min(1.0, least))


def wilcoxon_over_speakers(difference_n: np.ndarray, speakers: Sequence[str] | np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on the mean difference of each speaker, as scipy chooses its method.

    A check on `sign_flip`: every speaker counts alike, however many utterances there are. 1 where nothing differs.
    """
    _, speaker_n = np.unique(np.asarray(speakers), return_inverse=True)
    means_s = np.bincount(speaker_n, weights=difference_n) / np.bincount(speaker_n)
    return float(wilcoxon(means_s).pvalue) if np.any(means_s) else 1.0


def holm(p_t: Sequence[float]) -> np.ndarray:
    """P-values adjusted for the number of tests: each times how many are not smaller, made monotone.

    Holm (1979): where those below alpha are called significant, the chance of even one false call is at most alpha,
    whatever the tests have to do with each other.
    """
    raw_t = np.asarray(p_t, float)
    order_t = np.argsort(raw_t, kind="stable")
    stepped_t = raw_t[order_t] * np.arange(len(raw_t), 0, -1)
    adjusted_t = np.empty_like(raw_t)
    adjusted_t[order_t] = np.minimum(np.maximum.accumulate(stepped_t), 1.0)
    return adjusted_t
