"""Coverage of intervals over few speakers: a simulation.

Test sets of a few speakers are drawn many times, and each method's 95% interval of the mean JS is held against the
value of the population. Simulated populations have skewed scores, speakers who differ (a share `icc` of the variance),
and speakers with unequal numbers of clips. With predictions.jsonl of evaluated runs, real speakers are drawn as well,
each with a random part of their clips; there the product's intervals of other metrics are tried too.

    python -m aer_jax.studies.interval_coverage OUT_DIR [PREDICTIONS.jsonl ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from aer_jax.evaluation.intervals import interval, leave_one_out
from aer_jax.evaluation.metrics import pointwise
from aer_jax.evaluation.pooled import resampled
from aer_jax.evaluation.predictions import read_predictions, shares
from aer_jax.files import tables

SPEAKERS = (2, 3, 4, 5, 8, 10, 20)
TRIALS = 2000
RESAMPLES = 500
MEAN, DEVIATION = 0.15, 0.12  # of the JS of clips
# name -> (icc, does the speakers' distribution have a long tail, log deviation of their numbers of clips)
POPULATIONS = {
    "alike, equal": (0.1, False, 0.0),
    "alike, unequal": (0.02, False, 1.2),
    "differ, unequal": (0.1, False, 0.7),
    "differ much, unequal": (0.3, False, 0.7),
    "long tail, very unequal": (0.3, True, 1.2),
}
REAL = ("js", "bc", "accuracy", "uar", "ece_soft", "r2")
Sample = tuple[np.ndarray, np.ndarray]  # utterances and summed score of each speaker


def simulated(name: str, speakers: int, rng: np.random.Generator) -> Sample:
    """A test set of a population whose mean is MEAN: gamma scores around each speaker's own mean."""
    icc, tail, unequal = POPULATIONS[name]
    size_s = np.maximum(3, np.round(40 * rng.lognormal(-(unequal**2) / 2, unequal, speakers)))
    deviation = DEVIATION * np.sqrt(icc / (1 - icc))
    shape = (MEAN / deviation) ** 2
    log_variance = np.log(1 + 1 / shape)
    mean_s = MEAN * (
        rng.lognormal(-log_variance / 2, np.sqrt(log_variance), speakers)
        if tail
        else rng.gamma(shape, 1 / shape, speakers)
    )
    within = (MEAN / DEVIATION) ** 2
    return size_s, rng.gamma(within * size_s, mean_s / within)


def satterthwaite(size_s: np.ndarray, sum_s: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """What the product gives, below its least number of speakers too."""
    left_out_s = (sum_s.sum() - sum_s) / (size_s.sum() - size_s)
    return interval(sum_s.sum() / size_s.sum(), left_out_s, size_s, least=2) or (np.nan, np.nan)


def naive_t(size_s: np.ndarray, sum_s: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """CR1 variance, t with S - 1 degrees of freedom, as regression software gives it."""
    speakers, mean, error = _cr1(size_s, sum_s)
    reach = student_t.ppf(0.975, speakers - 1) * error
    return mean - reach, mean + reach


def percentile(size_s: np.ndarray, sum_s: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile bootstrap over speakers, the product's until now."""
    low, high = np.quantile(_drawn_means(size_s, sum_s, rng), [0.025, 0.975])
    return low, high


def bca(size_s: np.ndarray, sum_s: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap over speakers (Efron, 1987)."""
    mean_r = _drawn_means(size_s, sum_s, rng)
    below = np.clip((mean_r < sum_s.sum() / size_s.sum()).mean(), 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES)
    left_out_s = (sum_s.sum() - sum_s) / (size_s.sum() - size_s)
    change_s = left_out_s.mean() - left_out_s
    acceleration = (change_s**3).sum() / (6 * (change_s**2).sum() ** 1.5)
    z = norm.ppf(below) + norm.ppf([0.025, 0.975])
    low, high = np.quantile(mean_r, norm.cdf(norm.ppf(below) + z / (1 - acceleration * z)))
    return low, high


def studentized(size_s: np.ndarray, sum_s: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Bootstrap-t over speakers; draws of one speaker alone have no error and count as infinitely far."""
    speakers, mean, error = _cr1(size_s, sum_s)
    times_rs = rng.multinomial(speakers, np.full(speakers, 1 / speakers), RESAMPLES)
    total_r = times_rs @ size_s
    mean_r = times_rs @ sum_s / total_r
    residual_rs = sum_s - mean_r[:, None] * size_s
    error_r = np.sqrt((times_rs * residual_rs**2).sum(axis=1) * speakers / (speakers - 1)) / total_r
    with np.errstate(divide="ignore", invalid="ignore"):
        t_r = np.where(error_r > 1e-12, (mean_r - mean) / error_r, np.sign(mean_r - mean) * 1e9)
    low, high = np.quantile(t_r, [0.025, 0.975])
    return mean - high * error, mean - low * error


def _cr1(size_s: np.ndarray, sum_s: np.ndarray) -> tuple[int, float, float]:
    speakers, total = len(size_s), size_s.sum()
    mean = sum_s.sum() / total
    residual_s = sum_s - mean * size_s
    return speakers, mean, float(np.sqrt((residual_s**2).sum() * speakers / (speakers - 1)) / total)


def _drawn_means(size_s: np.ndarray, sum_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    times_rs = rng.multinomial(len(size_s), np.full(len(size_s), 1 / len(size_s)), RESAMPLES)
    return times_rs @ sum_s / (times_rs @ size_s)


METHODS: dict[str, Callable[..., tuple[float, float]]] = {
    "percentile bootstrap": percentile,
    "BCa bootstrap": bca,
    "studentized bootstrap": studentized,
    "CR1, t(S - 1)": naive_t,
    "CR2, Satterthwaite (used)": satterthwaite,
}


def coverage(draw: Callable[[int, np.random.Generator], Sample], truth: float, seed: int = 0) -> dict:
    """Method -> for each number of SPEAKERS the share of intervals that hold `truth`, and their median width."""
    results: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in METHODS}
    for speakers in SPEAKERS:
        rng = np.random.default_rng([seed, speakers])
        samples = [draw(speakers, rng) for _ in range(TRIALS)]
        for name, method in METHODS.items():
            ends_t2 = np.array([method(*sample, rng) for sample in samples])
            holds = ((ends_t2[:, 0] <= truth) & (truth <= ends_t2[:, 1])).mean()
            results[name][speakers] = (float(holds), float(np.median(np.ptp(ends_t2, axis=1))))
    return results


class RealSpeakers:
    """The speakers of evaluated runs as a population.

    Args:
        files: their predictions.jsonl; no clip twice.
    """

    def __init__(self, files: list[Path]):
        lines = [line for file in files for line in read_predictions(file, "evaluate the run again")]
        self.references_nk, self.probs_nk = (shares(lines, key, lines[0]["probs"]) for key in ("reference", "probs"))
        self.js_n = pointwise(self.references_nk, self.probs_nk)["js"]
        names, self.speaker_n = np.unique([line["speaker"] for line in lines], return_inverse=True)
        self.clips_of = [np.flatnonzero(self.speaker_n == s) for s in range(len(names))]

    def rows(self, speakers: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Clips of each drawn speaker: a tenth to all of theirs."""
        for s in rng.integers(len(self.clips_of), size=speakers):
            clips_c = self.clips_of[s]
            yield rng.permutation(clips_c)[: max(2, round(len(clips_c) * rng.uniform(0.1, 1)))]

    def draw(self, speakers: int, rng: np.random.Generator) -> Sample:
        """A test set of them."""
        parts = [self.js_n[rows] for rows in self.rows(speakers, rng)]
        return np.array([float(len(part)) for part in parts]), np.array([part.sum() for part in parts])

    def metrics(self, seed: int = 0) -> dict[str, dict[int, float]]:
        """Metric -> for each number of SPEAKERS the share of the product's intervals that hold everyone's value."""
        everyone = np.ones((1, len(self.clips_of)), int)
        truth = resampled(self.references_nk, self.probs_nk, self.speaker_n, everyone)
        results: dict[str, dict[int, float]] = {name: {} for name in REAL}
        for speakers in SPEAKERS:
            rng = np.random.default_rng([seed, speakers])
            covered = dict.fromkeys(REAL, 0)
            for _ in range(TRIALS // 4):
                parts = list(self.rows(speakers, rng))
                rows_n = np.concatenate(parts)
                speaker_n, times_rs, size_s = leave_one_out(np.repeat(np.arange(speakers), list(map(len, parts))))
                values = resampled(self.references_nk[rows_n], self.probs_nk[rows_n], speaker_n, times_rs)
                for name in REAL:
                    ends = interval(values[name][0], values[name][1:], size_s, least=2)
                    covered[name] += bool(ends and ends[0] <= truth[name][0] <= ends[1])
            for name in REAL:
                results[name][speakers] = covered[name] / (TRIALS // 4)
        return results


def markdown(results: dict) -> str:
    """The tables."""
    parts = ["Share of 95% intervals of the mean JS that hold the population's value, and their median width:"]
    head = ["population, method", *(f"{n} speakers" for n in SPEAKERS)]
    rows = [
        [f"{population}, {name}", *(f"{holds:.2f} ({width:.2f})" for holds, width in row.values())]
        for population, methods in results["js"].items()
        for name, row in methods.items()
    ]
    parts.append(tables.markdown([head, *rows]))
    if results["metrics"]:
        parts.append("The same of other metrics, real speakers, the method used:")
        rows = [[name, *(f"{holds:.2f}" for holds in row.values())] for name, row in results["metrics"].items()]
        parts.append(tables.markdown([head, *rows]))
    return "\n\n".join(parts) + "\n"


def main(out: Path, files: list[Path]) -> None:
    """Write coverage.json and coverage.md."""
    js = {name: coverage(partial(simulated, name), MEAN) for name in POPULATIONS}
    metrics: dict = {}
    if files:
        real = RealSpeakers(files)
        js["real speakers"] = coverage(real.draw, float(real.js_n.mean()))
        metrics = real.metrics()
    results = {"trials": TRIALS, "js": js, "metrics": metrics}
    out.mkdir(parents=True, exist_ok=True)
    (out / "coverage.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "coverage.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
