"""Confidence intervals from resampled speakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000


def speaker_intervals(values: Mapping[str, np.ndarray], speakers: Sequence[str] | np.ndarray, seed: int = 0) -> dict:
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
    drawn = speaker_draws(speakers, seed)
    if drawn is None:
        found = len(set(speakers)) or "none"
        reason = f"an interval over speakers needs at least two speakers; there is {found}"
        return {"reason": reason} | dict.fromkeys(values)
    speaker_n, times_rs = drawn
    sizes_r = times_rs @ np.bincount(speaker_n)

    def interval(values_n: np.ndarray) -> tuple[float, float] | None:
        if np.isnan(values_n).any():
            return None
        return percentiles(times_rs @ np.bincount(speaker_n, weights=values_n) / sizes_r)

    return {"reason": None} | {name: interval(values_n) for name, values_n in values.items()}


def sums_interval(
    terms_nm: np.ndarray,
    speakers: Sequence[str] | np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
) -> tuple[float, float] | None:
    """The same for a figure that is no mean but a function of sums over utterances, as a correlation is.

    Args:
        terms_nm: M numbers an utterance [N, M], whose sums the figure is made of.
        speakers: the speaker of each utterance [N].
        statistic: sums [R, M] -> the figure [R], NaN where it has no meaning.

    Returns:
        (low, high) over the draws in which it has a meaning; None below two speakers, or where it seldom has one.
    """
    drawn = speaker_draws(speakers, seed)
    if drawn is None:
        return None
    speaker_n, times_rs = drawn
    sums_sm = np.zeros((times_rs.shape[1], terms_nm.shape[1]))
    np.add.at(sums_sm, speaker_n, terms_nm)
    found_r = statistic(times_rs @ sums_sm)
    found_r = found_r[np.isfinite(found_r)]
    return percentiles(found_r) if len(found_r) > RESAMPLES // 2 else None


def speaker_draws(speakers: Sequence[str] | np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray] | None:
    """(speaker of each utterance [N], how often each speaker is drawn [RESAMPLES, S]); None below two speakers."""
    names, speaker_n = np.unique(np.asarray(speakers), return_inverse=True)
    if len(names) < 2:
        return None
    rng = np.random.default_rng(seed)
    return speaker_n, rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)


def percentiles(found_r: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of what the draws gave."""
    low, high = np.quantile(found_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
