"""Confidence intervals from resampled speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000


def speaker_intervals(values: Mapping[str, np.ndarray], speakers: Sequence[str], seed: int = 0) -> dict:
    """95 % intervals of means over utterances, by drawing whole speakers with replacement.

    Percentile bootstrap (Efron and Tibshirani, 1993) over clusters: the utterances of one speaker resemble
    each other, so drawing utterances instead would give far too narrow intervals. For the same speakers and
    seed the draws are the same, so arms and baselines are resampled together.

    Args:
        values: float arrays [N] by name, one number an utterance.
        speakers: the speaker of each utterance [N].

    Returns:
        (low, high) by name, None where a value is NaN or there are fewer than two speakers; `reason` says
        so in the latter case and is None otherwise.
    """
    names, speaker_n = np.unique(np.asarray(speakers), return_inverse=True)
    if len(names) < 2:
        reason = f"an interval over speakers needs at least two speakers; there is {len(names) or 'none'}"
        return {"reason": reason} | dict.fromkeys(values)
    times_rs = speaker_draws(len(names), seed)
    sizes_r = times_rs @ np.bincount(speaker_n)

    def means_r(values_n: np.ndarray) -> np.ndarray:
        return times_rs @ np.bincount(speaker_n, weights=values_n) / sizes_r

    return {"reason": None} | {name: interval(means_r(values_n)) for name, values_n in values.items()}


def speaker_draws(speakers: int, seed: int = 0) -> np.ndarray:
    """How often each of so many speakers is drawn, int [RESAMPLES, speakers]; the same for the same arguments."""
    share_s = np.full(speakers, 1 / speakers)
    return np.random.default_rng(seed).multinomial(speakers, share_s, size=RESAMPLES)


def interval(values_r: np.ndarray) -> tuple[float, float] | None:
    """The middle 95 % of resampled values; None where one is NaN."""
    if np.isnan(values_r).any():
        return None
    low, high = np.quantile(values_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
