"""Finding: the sentence at the top of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aer_jax.evaluation.baselines import BASELINES
from aer_jax.evaluation.intervals import NOT_AVAILABLE, not_available, speaker_intervals
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.predictions import shares
from aer_jax.reports.runs import EvaluatedRun, best

FEW = 10  # speakers below which a page warns
_COMPARED = ("train_mean", "linear_probe", "best_constant", "split_half")
_UNTESTED = ("lower than", "level with", "higher than")


def finding(runs: Sequence[EvaluatedRun]) -> str:
    """The finding in a table: the arm with the lowest mean JS, compared with the baselines and the next arm."""
    run = best(runs)
    js, ends = run.metrics["js"], run.metrics["ci"]["js"]
    within = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else not_available(run.metrics["n_speakers"])
    lead = f"Of {len(runs)} arms, “{run.name}” has the lowest JS," if len(runs) > 1 else f"“{run.name}” has a JS of"
    by_verdict: dict[str, list[str]] = {}
    for key in _COMPARED:
        row = run.metrics["baselines"].get(key, {})
        if other := row.get("js"):
            by_verdict.setdefault(_verdict(js - other, row.get("js_difference")), []).append(
                _beside(js, other, BASELINES[key].phrase)
            )
    parts = [f"{verdict} {_listed(names)}" for verdict, names in by_verdict.items()]
    sentence = f"{lead} {js:.3f} (95% interval over speakers {within}): {'; '.join(parts)}."
    if set(by_verdict) & set(_UNTESTED):
        reason = "evaluate the run again for that" if ends else NOT_AVAILABLE
        sentence += f" Which differences are significant is not known ({reason})."
    return sentence + (_next_arm(runs, run) if len(runs) > 1 else "")


def few_speakers(n_speakers: int) -> str | None:
    """A warning where there are few speakers."""
    if n_speakers >= FEW:
        return None
    who = "one speaker" if n_speakers == 1 else f"{n_speakers} speakers"
    return (
        f"These numbers rest on {who}. Other speakers may give quite others, so the intervals are wide or missing, and "
        "the order of the arms may change."
    )


def _verdict(difference: float, tested: dict[str, Any] | None) -> str:
    if tested and tested["ci"]:
        low, high = tested["ci"]
        return "better than" if high < 0 else "worse than" if low > 0 else "not significantly different from"
    return _UNTESTED[1 + int(np.sign(round(difference, 4)))]


def _beside(js: float, other: float, name: str) -> str:
    change = round(100 * (js / other - 1))
    by = f", {abs(change)}% {'below' if change < 0 else 'above'} it" if change else ""
    return f"{name} ({other:.3f}{by})"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _next_arm(runs: Sequence[EvaluatedRun], run: EvaluatedRun) -> str:
    other = min((one for one in runs if one is not run), key=lambda one: one.metrics["js"])
    speakers = [line["speaker"] for line in sorted(run.predictions, key=lambda line: line["id"])]
    ends = speaker_intervals({"d": _js(run) - _js(other)}, speakers)["d"]
    if ends is None:
        return f" The next arm is “{other.name}” ({other.metrics['js']:.3f})."
    verdict = "significantly better than" if ends[1] < 0 else "not significantly different from"
    return f" It is {verdict} the next arm, “{other.name}” ({other.metrics['js']:.3f})."


def _js(run: EvaluatedRun) -> np.ndarray:
    lines, classes = sorted(run.predictions, key=lambda line: line["id"]), run.metrics["classes"]
    return js_divergence(shares(lines, "reference", classes), shares(lines, "probs", classes))
