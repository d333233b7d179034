"""Confidence intervals over speakers: cluster-robust standard errors with few-cluster degrees of freedom.

The utterances of one speaker resemble each other, so the speaker is the sampling unit. With V the CR2 variance of Bell
and McCaffrey (2002), an interval is value +- t(df) sqrt(V), df by Satterthwaite's approximation for speakers who differ
(Imbens and Kolesar, 2016). For a mean over utterances V is exactly CR2, and with as many utterances of each speaker the
interval is Student's t over speakers' means; any other statistic takes the changes by leaving each speaker out, the
jackknife. SciPy has no clusters, and statsmodels only CR1, which holds 89% instead of 95% with 3 to 5 unequal speakers
(`python -m aer_jax.studies.interval_coverage`; docs/results/intervals.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import t as student_t

LEVEL = 0.95
METHOD = "t over speakers, CR2 variance, Satterthwaite degrees of freedom"
MIN_SPEAKERS = 3  # two speakers leave about one degree of freedom: too wide to say anything, and it covers less
NOT_AVAILABLE = f"n/a, needs at least {MIN_SPEAKERS} speakers"
Interval = tuple[float, float]
UNIT = (0.0, 1.0)
UNBOUNDED = (-np.inf, np.inf)


def speaker_intervals(
    values: Mapping[str, np.ndarray], speakers: Sequence[str] | np.ndarray, limits: Interval = UNBOUNDED
) -> dict:
    """95% intervals of means over utterances.

    Args:
        values: float arrays [N] by name, one number per utterance.
        speakers: the speaker of each utterance [N].
        limits: of what is measured; intervals are cut there.

    Returns:
        (low, high) by name, None where a value is NaN or there are fewer than MIN_SPEAKERS speakers; `reason` says
        so in the latter case and is None otherwise.
    """
    speaker_n, size_s = _speakers(speakers)
    if len(size_s) < MIN_SPEAKERS:
        count = {0: "there is none", 1: "there is 1"}.get(len(size_s), f"there are {len(size_s)}")
        reason = f"an interval over speakers needs at least {MIN_SPEAKERS} speakers; {count}"
        return {"reason": reason} | dict.fromkeys(values)
    return {"reason": None} | {
        name: interval(*_leave_one_out(values_n, speaker_n, size_s), size_s, limits)
        for name, values_n in values.items()
    }


def sums_interval(
    terms_nm: np.ndarray,
    speakers: Sequence[str] | np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    limits: Interval = UNBOUNDED,
) -> Interval | None:
    """The interval of a function of sums over utterances, as a correlation is one.

    Args:
        terms_nm: M numbers an utterance [N, M], whose sums the statistic is made of.
        speakers: the speaker of each utterance [N].
        statistic: sums [R, M] -> the statistic [R], NaN where it is undefined.
        limits: of the statistic.

    Returns:
        (low, high); None below MIN_SPEAKERS, or where the statistic is undefined without some speaker.
    """
    speaker_n, size_s = _speakers(speakers)
    sums_sm = np.zeros((len(size_s), terms_nm.shape[1]))
    np.add.at(sums_sm, speaker_n, terms_nm)
    total_m = sums_sm.sum(axis=0)
    value, *left_out = statistic(np.concatenate([total_m[None], total_m - sums_sm]))
    return interval(value, np.array(left_out), size_s, limits)


def difference_interval(
    values_n: np.ndarray, here_n: np.ndarray, speakers: Sequence[str] | np.ndarray
) -> Interval | None:
    """The interval of mean(values[here]) - mean(values[~here]), two groups of other speakers: Welch's.

    Returns:
        (low, high); None where a group has fewer than MIN_SPEAKERS speakers.
    """
    speakers_n = np.asarray(speakers)
    means, variances, dfs = [], [], []
    for mine in (here_n, ~here_n):
        speaker_n, size_s = _speakers(speakers_n[mine])
        if len(size_s) < MIN_SPEAKERS:
            return None
        mean, left_out_s = _leave_one_out(values_n[mine], speaker_n, size_s)
        means.append(mean)
        variances.append(_variance(mean, left_out_s, size_s))
        dfs.append(_degrees_of_freedom(size_s))
    variance = sum(variances)
    squares = sum(v**2 / df for v, df in zip(variances, dfs, strict=True))
    return _around(means[0] - means[1], variance, variance**2 / squares if squares else np.inf, UNBOUNDED)


def interval(
    value: float,
    left_out_s: np.ndarray,
    size_s: np.ndarray,
    limits: Interval = UNBOUNDED,
    least: int = MIN_SPEAKERS,
) -> Interval | None:
    """The interval of any statistic.

    Args:
        value: on all utterances.
        left_out_s: on all utterances but those of one speaker [S].
        size_s: utterances of each speaker [S].
        limits: of the statistic; the interval is cut there.
        least: number of speakers; the simulation tries fewer than the product does.

    Returns:
        (low, high); None below `least`, or where a number is not finite.
    """
    if len(size_s) < least or not (np.isfinite(value) and np.isfinite(left_out_s).all()):
        return None
    return _around(value, _variance(value, left_out_s, size_s), _degrees_of_freedom(size_s), limits)


def not_available(n_speakers: int) -> str:
    """The text for an interval that cannot be computed."""
    return NOT_AVAILABLE if n_speakers < MIN_SPEAKERS else "n/a"


def leave_one_out(speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The resamples that leave out one speaker each, for `resampled` and then `interval`.

    Returns:
        (speaker of each utterance [N], how often each speaker counts [1 + S, S], utterances of each speaker [S]); the
        first row of the second counts everyone, each other row all but one.
    """
    speaker_n, size_s = _speakers(speakers)
    everyone = np.ones((1, len(size_s)), int)
    return speaker_n, np.concatenate([everyone, everyone - np.eye(len(size_s), dtype=int)]), size_s


def _speakers(speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, speaker_n, size_s = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    return speaker_n, size_s


def _leave_one_out(values_n: np.ndarray, speaker_n: np.ndarray, size_s: np.ndarray) -> tuple[float, np.ndarray]:
    sums_s = np.bincount(speaker_n, weights=values_n)
    return float(values_n.mean()), (sums_s.sum() - sums_s) / (size_s.sum() - size_s)


def _variance(value: float, left_out_s: np.ndarray, size_s: np.ndarray) -> float:
    """CR2 of a mean: its residual sum e_s / N is (value - left_out_s) (1 - h_s), h_s = n_s / N the leverage."""
    return float(((1 - size_s / size_s.sum()) * (value - left_out_s) ** 2).sum())


def _degrees_of_freedom(size_s: np.ndarray) -> float:
    return _satterthwaite(tuple(np.sort(size_s).tolist()))


@functools.lru_cache(maxsize=64)  # many metrics of the same speakers
def _satterthwaite(sizes: tuple[int, ...]) -> float:
    """tr(M)^2 / tr(M M), M = diag(1 / (1 - h)) C, C the covariance of the residual sums where speakers' means vary.

    With h the speakers' shares of the utterances: C[s, t] = h_s h_t (sum h^2 - h_s - h_t), and h_s^2 more where s = t.
    """
    size_s, total = np.array(sizes), sum(sizes)
    h_s, others_s = size_s / total, (total - size_s) / total
    c_ss = np.outer(h_s, h_s) * ((h_s**2).sum() - h_s[:, None] - h_s) + np.diag(h_s**2)
    return float((np.diag(c_ss) / others_s).sum() ** 2 / (c_ss**2 / np.outer(others_s, others_s)).sum())


def _around(value: float, variance: float, df: float, limits: Interval) -> Interval:
    reach = float(student_t.ppf((1 + LEVEL) / 2, df) * np.sqrt(variance))
    low, high = np.clip((value - reach, value + reach), *limits)
    return float(low), float(high)
