"""The sentence at the top: it follows the sign of each difference, and its significance."""

import copy
import dataclasses

import numpy as np
import pytest
from small_runs import small_run

from aer_jax.evaluation.intervals import speaker_intervals
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.reports.finding import few_speakers, finding
from aer_jax.reports.runs import load_runs


def run_with(runs, js, rows):
    (run,) = load_runs(runs[:1])
    run = dataclasses.replace(run, name="weak", metrics=copy.deepcopy(run.metrics) | {"js": js})
    for key, (other, ci) in rows.items():
        run.metrics["baselines"][key] |= {"js": other, "js_difference": {"value": None, "ci": ci}}
    return run


def test_better_worse_and_not_significant(runs):
    run = run_with(
        runs,
        0.3,
        {
            "train_mean": (0.25, [0.01, 0.09]),
            "linear_probe": (0.2, [0.05, 0.15]),
            "best_constant": (0.31, [-0.05, 0.03]),
            "split_half": (0.4, [-0.2, -0.01]),
        },
    )
    said = finding([run])
    assert said.startswith("“weak” has a JS of 0.300 (95% interval over speakers 0.")
    assert said.endswith(
        "): worse than the training mean (0.250, 20% above it) and the linear probe (0.200, 50% above it); not "
        "significantly different from the best constant (0.310, 3% below it); better than one half of the listeners "
        "against the other (0.400, 25% below it)."
    )
    assert "closest" not in said


def test_where_nothing_was_tested_nothing_is_called_better(runs):
    """Runs evaluated by an earlier version, and test sets of too few speakers."""
    rows = {
        "train_mean": (0.25, None),
        "linear_probe": (0.4, None),
        "best_constant": (0.3, None),
        "split_half": (None, None),
    }
    run = run_with(runs, 0.3, rows)
    del run.metrics["baselines"]["train_mean"]["js_difference"]
    said = finding([run])
    assert (
        "higher than the training mean (0.250, 20% above it); lower than the linear probe (0.400, 25% below it); "
        in said
    )
    assert "level with the best constant (0.300)." in said and "better" not in said and "worse" not in said
    assert said.endswith("is not known (evaluate the run again for that).")
    run.metrics["ci"]["js"] = None
    run.metrics["n_speakers"] = 2
    said = finding([run])
    assert "over speakers n/a, needs at least 3 speakers)" in said
    assert said.endswith("is not known (n/a, needs at least 3 speakers).")


def test_the_best_arm_is_compared_with_the_next(runs):
    """The signs of the intervals of paired differences, computed here."""
    loaded = load_runs(runs)
    js = []
    for run in loaded:
        human_nk, probs_nk = (
            np.array([list(line[key].values()) for line in run.predictions]) for key in ("reference", "probs")
        )
        js.append(js_divergence(human_nk, probs_nk))
    speakers = [line["speaker"] for line in loaded[0].predictions]
    order = np.argsort([values.mean() for values in js])
    best, then, last = (loaded[i] for i in order)
    low, high = speaker_intervals({"d": js[order[0]] - js[order[1]]}, speakers)["d"]
    assert low < 0 < high
    assert f"It is not significantly different from the next arm, “{then.name}” (" in finding(loaded)
    low, high = speaker_intervals({"d": js[order[0]] - js[order[2]]}, speakers)["d"]
    assert high < 0
    assert f"It is significantly better than the next arm, “{last.name}” (" in finding([best, last])


def test_differences_are_those_of_the_clips(runs):
    (run,) = load_runs(runs[:1])
    constant_k = np.array(list(run.metrics["baselines"]["train_mean"]["distribution"].values()))
    human_nk, probs_nk = (
        np.array([list(line[key].values()) for line in run.predictions]) for key in ("reference", "probs")
    )
    difference_n = js_divergence(human_nk, probs_nk) - js_divergence(human_nk, constant_k)
    found = run.metrics["baselines"]["train_mean"]["js_difference"]
    assert found["value"] == pytest.approx(difference_n.mean())
    expected = speaker_intervals({"d": difference_n}, [line["speaker"] for line in run.predictions])["d"]
    assert found["ci"] == pytest.approx(expected) and expected[1] < 0
    assert "better than the training mean" in finding([run])


def test_few_speakers_are_warned_of():
    assert few_speakers(10) is None
    assert few_speakers(1).startswith("These numbers rest on one speaker.")
    assert few_speakers(9).startswith("These numbers rest on 9 speakers.")


def test_a_bad_arm_is_called_worse(dataset, tmp_path):
    bad = small_run(tmp_path / "bad", dataset, skill=-0.0, seed=9)
    said = finding(load_runs([bad]))
    assert "worse than the linear probe" in said and "better than the linear probe" not in said
