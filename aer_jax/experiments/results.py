"""Results of an experiment: rows with intervals over speakers, and tests between arms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aer_jax.errors import UserError
from aer_jax.evaluation import baselines
from aer_jax.evaluation.ambiguity import NAMES, ambiguity, ambiguity_bins
from aer_jax.evaluation.intervals import LEVEL, METHOD, UNIT, interval, leave_one_out, speaker_intervals
from aer_jax.evaluation.metrics import DEFINITIONS, POINTWISE, pointwise
from aer_jax.evaluation.pooled import POOLED, resampled
from aer_jax.evaluation.significance import holm, sign_flip, wilcoxon_over_speakers
from aer_jax.evaluation.summary import by_ambiguity, summary
from aer_jax.experiments.settings import Arm, Trial
from aer_jax.experiments.test_set import TestSet, baseline_predictions, own_labels, predictions

QUANTITIES = (*POINTWISE, *POOLED)
TESTED = ("js", "bc")  # quantities that arms are compared in
ALPHA = 0.05
R2_LIMITS = (-math.inf, 1.0)


@dataclass(frozen=True)
class Score:
    """An arm or a baseline, scored on the human votes.

    Attributes:
        values: quantity -> its value, the mean over seeds; NaN where it has no meaning.
        ci: quantity -> 95 % over speakers, or None.
        by_seed: quantity -> one value a seed.
        by_ambiguity: level -> n, n_speakers, js, bc, the accuracies and their ci.
        utterances: js and bc of each utterance, the mean over seeds [N]; empty where not all have them.
    """

    values: dict[str, float]
    ci: dict[str, tuple[float, float] | None]
    by_seed: dict[str, list[float]]
    by_ambiguity: dict[str, dict[str, Any]]
    utterances: dict[str, np.ndarray] = field(default_factory=dict, repr=False)


def score(test_set: TestSet, probs_snk: Sequence[np.ndarray], top_label: bool = True) -> Score:
    """Score the predictions of one or several seeds; the intervals are of the mean over seeds.

    Args:
        test_set: references and speakers.
        probs_snk: [N, K] for each seed.
        top_label: False for predictions without a largest class.
    """
    speaker_n, times_rs, size_s = leave_one_out(test_set.speakers_n)
    seeds = [resampled(test_set.references_nk, probs_nk, speaker_n, times_rs, top_label) for probs_nk in probs_snk]
    by_seed = {name: [float(values[name][0]) for values in seeds] for name in QUANTITIES}
    values, ci = {}, {}
    for name in QUANTITIES:
        mean_r = np.mean([values[name] for values in seeds], axis=0)
        values[name] = float(mean_r[0])
        ci[name] = interval(values[name], mean_r[1:], size_s, R2_LIMITS if name == "r2" else UNIT)
    means = [pointwise(test_set.references_nk, probs_nk, top_label) for probs_nk in probs_snk]
    utterances = {name: np.mean([values[name] for values in means], axis=0) for name in POINTWISE}
    return Score(
        values,
        ci,
        by_seed,
        by_ambiguity(utterances, test_set.speakers_n, test_set.references_nk),
        {name: utterances[name] for name in TESTED},
    )


def baseline_rows(test_set: TestSet, probs: Mapping[str, np.ndarray]) -> dict[str, Score]:
    """The rows of every table below the arms: those that predict [N, K], and the listeners' halves."""
    rows = {name: score(test_set, [probs_nk], top_label=name != "uniform") for name, probs_nk in probs.items()}
    values = baselines.split_half(test_set.dataset.votes.whole.counts(test_set.ids, test_set.dataset.classes))
    of_all = summary(values, test_set.speakers_n)
    means = dict.fromkeys(QUANTITIES, math.nan) | {name: of_all[name] for name in values}
    ci = dict.fromkeys(QUANTITIES) | of_all["ci"]
    ci.pop("reason")
    levels = by_ambiguity(values, test_set.speakers_n, test_set.references_nk)
    rows["split_half"] = Score(means, ci, {name: [v] for name, v in means.items()}, levels)
    return rows


def compare(test_set: TestSet, rows: Mapping[str, Score], arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Paired tests of all arms that differ in one thing, and of each arm with the linear probe where there is one.

    Each quantity over all utterances is one family of Holm's correction; js by ambiguity, all levels together, another.

    Returns:
        of each test: family, quantity, level, what differs, the two rows, the difference of the first minus the second
        (mean over seeds) with its interval over speakers, p (sign flips of whole speakers) and its least possible
        value, p_holm, p_wilcoxon (over speakers' means), n, n_speakers, tests (of the family), significant.
    """
    pairs = [("method", arm.name, "linear_probe") for arm in arms if "linear_probe" in rows]
    for a, b in itertools.combinations(arms, 2):
        differs = [name for name in ("recipe", "labels", "dime_aug") if getattr(a, name) != getattr(b, name)]
        if len(differs) == 1:
            pairs.append((differs[0], b.name, a.name))
    level_n = ambiguity_bins(ambiguity(test_set.references_nk))
    everywhere = np.ones(len(level_n), bool)
    families = {quantity: [(quantity, "all", everywhere)] for quantity in TESTED}
    families["js by ambiguity"] = [("js", name, level_n == b) for b, name in enumerate(NAMES)]
    adjusted = []
    for family, parts in families.items():
        tests = [
            {"family": family, "quantity": quantity, "level": level, "differs": differs, "a": a, "b": b}
            | _test(rows[a].utterances[quantity] - rows[b].utterances[quantity], test_set.speakers_n, here)
            for (differs, a, b), (quantity, level, here) in itertools.product(pairs, parts)
            if here.any()
        ]
        for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
            adjusted.append(test | {"p_holm": float(p), "tests": len(tests), "significant": bool(p < ALPHA)})
    return adjusted


def _test(difference_n: np.ndarray, speakers_n: np.ndarray, here: np.ndarray) -> dict[str, Any]:
    difference_n, speakers_n = difference_n[here], speakers_n[here]
    flip = sign_flip(difference_n, speakers_n)
    return {
        "difference": flip.difference,
        "ci": speaker_intervals({"d": difference_n}, speakers_n)["d"],
        "p": flip.p,
        "p_least": flip.least,
        "p_wilcoxon": wilcoxon_over_speakers(difference_n, speakers_n),
        "n": len(difference_n),
        "n_speakers": len(set(speakers_n)),
    }


def results(
    test_set: TestSet, finished: Mapping[Arm, Mapping[int, Sequence[Trial]]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All numbers of an experiment.

    Args:
        test_set: the pooled test parts.
        finished: arm -> seed -> its runs, one a split, all trained and evaluated.

    Returns:
        what experiment.json holds of them, JSON-able but for NaN; and the pooled predictions [N, K] by name: of each
        arm the mean over seeds, and of the linear probe where there is one.
    """
    probs = {arm: [predictions(test_set, trials) for trials in seeds.values()] for arm, seeds in finished.items()}
    rows = {arm.name: score(test_set, probs_snk) for arm, probs_snk in probs.items()}
    some_trials = next(iter(next(iter(finished.values())).values()))
    learned = baseline_predictions(test_set, some_trials)
    others = baseline_rows(test_set, learned)
    arms = {}
    for arm, seeds in finished.items():
        trials = [trial for of_seed in seeds.values() for trial in of_seed]
        about = {"recipe": arm.recipe, "labels": arm.labels, "dime_aug": arm.dime_aug}
        runs = {"runs": [trial.config.out for trial in trials], "seeds": list(seeds)}
        arms[arm.name] = (
            about | runs | row_json(rows[arm.name]) | {"own_labels": _own(test_set, arm, seeds, probs[arm])}
        )
    dataset = test_set.dataset
    pooled = {arm.name: np.mean(probs_snk, axis=0) for arm, probs_snk in probs.items()}
    pooled |= {name: probs_nk for name, probs_nk in learned.items() if name == "linear_probe"}
    return {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "references": "human",
        "n": len(test_set.ids),
        "n_speakers": len(set(test_set.speakers_n)),
        "speakers_apart": all(dataset.speakers_apart for dataset in test_set.datasets.values()),
        "splits": {split: len(dataset.splits["test"]) for split, dataset in test_set.datasets.items()},
        "ci": {"level": LEVEL, "over": "speakers", "method": METHOD},
        "alpha": ALPHA,
        "arms": arms,
        "baselines": {name: row_json(row) | {"note": baselines.BASELINES[name].note} for name, row in others.items()},
        "tests": compare(test_set, rows | others, list(finished)),
        "definitions": DEFINITIONS,
    }, pooled


def row_json(row: Score) -> dict[str, Any]:
    """A row without its utterances."""
    values = row.values | {"ci": row.ci, "by_ambiguity": row.by_ambiguity}
    return values | ({"by_seed": row.by_seed} if len(row.by_seed["js"]) > 1 else {})


def _own(
    test_set: TestSet, arm: Arm, seeds: Mapping[int, Sequence[Trial]], probs_snk: Sequence[np.ndarray]
) -> dict[str, Any]:
    """The paper's way of scoring: against labels of the kind that the arm learned from."""
    try:
        own_nk = own_labels(test_set, next(iter(seeds.values())))
    except UserError as error:  # a test clip about which no synthetic listener gave a readable answer
        return {"references": arm.labels, "js": None, "js_distance": None, "bc": None, "reason": str(error)}
    scores = [pointwise(own_nk, probs_nk) for probs_nk in probs_snk]
    means = {name: float(np.mean([values[name] for values in scores])) for name in ("js", "js_distance", "bc")}
    return {"references": arm.labels} | means
