"""An experiment's numbers in words and tables, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aer_jax.evaluation.ambiguity import NAMES
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.evaluation.intervals import not_available
from aer_jax.files import tables
from aer_jax.files.tables import escape, number
from aer_jax.reports.table import span

HEADINGS = {
    "js": "JS divergence (base 2, lower is better)",
    "js_distance": "JS distance (square root, nats; lower is better)",
    "bc": "Bhattacharyya coefficient (higher is better)",
    "r2": "R² (mean over classes, higher is better)",
    "ece": "Calibration error of the top label (lower is better)",
    "ece_soft": "The same against the share of votes for it (lower is better)",
    "accuracy": "Accuracy (share of clips whose top class is right; any of tied top classes counts)",
    "accuracy_argmax": "Accuracy, argmax (of a reference's tied top classes only the first counts)",
    "uar": "UAR (recall averaged over classes; any of tied top classes counts)",
    "macro_f1": "F1, macro (any of tied top classes counts)",
    "weighted_f1": "F1, weighted (any of tied top classes counts)",
}
OWN = ("js", "js_distance", "bc")  # quantities with a column for the paper's own-label scoring
Table = list[list[str]]


def table(result: Mapping[str, Any], quantity: str) -> Table:
    """Head and rows of one quantity: arms, then baselines and ceiling."""
    levels = quantity in ("js", "bc", "accuracy", "accuracy_argmax")
    first = next(iter(result["arms"].values()))
    sizes = [first["by_ambiguity"][name]["n"] for name in NAMES]
    head = ["", "value", "95% over speakers"]
    head += [f"{name} ({n})" for name, n in zip(NAMES, sizes, strict=True)] if levels else []
    head += ["each seed"] if "by_seed" in first else []
    head += ["on own labels"] if quantity in OWN else []
    rows = [head]
    for name, row in [*result["arms"].items(), *result["baselines"].items()]:
        line = [_label(name), number(row[quantity])]
        line.append(span(row["ci"][quantity], result["n_speakers"], row[quantity]))
        line += [number(row["by_ambiguity"][level].get(quantity)) for level in NAMES] if levels else []
        if "by_seed" in first:
            line.append(" ".join(number(value) for value in row["by_seed"][quantity]) if "by_seed" in row else "")
        if quantity in OWN:
            line.append(number(row["own_labels"][quantity]) if "own_labels" in row else "")
        rows.append(line)
    return rows


def tests_table(tests: Sequence[Mapping[str, Any]]) -> Table:
    """Head and rows of the tests of one family."""
    head = ["clips", "a", "b", "a - b", "95% over speakers", "p", "p, Holm", "p, Wilcoxon", "significant"]
    rows = [head]
    for test in tests:
        line = [f"{test['level']} ({test['n']})", test["a"], _label(test["b"])]
        line += [number(test["difference"], 4), _within(test)]
        line += [number(test[key], 4) for key in ("p", "p_holm", "p_wilcoxon")]
        rows.append([*line, "yes" if test["significant"] else "no"])
    return rows


def findings(result: Mapping[str, Any]) -> list[str]:
    """Significance in sentences: one per comparison over all clips, and where levels differ from it."""
    arms, baselines = result["arms"], result["baselines"]
    best = min(arms, key=lambda name: arms[name]["js"])
    others = ", ".join(
        f"{_row_name(name)} {number(baselines[name]['js'])}"
        for name in ("train_mean", "linear_probe", "best_constant", "split_half")
        if baselines.get(name, {}).get("js") is not None
    )
    lead, within = arms[best]["js"], span(arms[best]["ci"]["js"], result["n_speakers"])
    sentences = [f"The lowest JS is {number(lead)} ({within}), of {best}; for comparison: {others}."]
    tests = [test for test in result["tests"] if test["family"] == "js"]
    if not tests:
        return sentences
    sentences += [_sentence(test, result) for test in tests]
    levels = [test for test in result["tests"] if test["family"] == "js by ambiguity"]
    yes = [test for test in levels if test["significant"]]
    sentences.append(
        f"By ambiguity, {len(yes)} of {len(levels)} comparisons of JS are significant after Holm's correction"
        + (": " + " ".join(_sentence(test, result) for test in yes) if yes else ".")
    )
    least = max(test["p_least"] for test in tests)
    if least * len(tests) >= result["alpha"]:
        sentences.append(
            f"{tests[0]['n_speakers']} speakers cannot give a p below {least:.2g}, which {len(tests)} tests make "
            f"{min(1, least * len(tests)):.2g} for the smallest: more speakers or fewer arms are needed before a "
            "difference can be called significant."
        )
    return sentences


def _sentence(test: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    rows = result["arms"] | result["baselines"]
    js = [
        row["js"] if test["level"] == "all" else row["by_ambiguity"][test["level"]]["js"]
        for row in (rows[test["a"]], rows[test["b"]])
    ]
    where = "" if test["level"] == "all" else f" where ambiguity is {test['level']} ({test['n']} clips)"
    direction = "lower" if test["difference"] < 0 else "higher"
    verdict = f"significantly {direction}" if test["significant"] else "no significant difference"
    return (
        f"{test['a']} against {_row_name(test['b'])}{where}: JS {number(js[0])} against {number(js[1])}, {verdict} "
        f"({number(test['difference'], 4)}, 95% over speakers {_within(test)}; "
        f"p = {test['p']:.2g}, after Holm's correction over {test['tests']} tests {test['p_holm']:.2g})."
    )


def _within(test: Mapping[str, Any]) -> str:
    if test["ci"] is None:
        return not_available(test["n_speakers"])
    return f"{number(test['ci'][0], 4)} to {number(test['ci'][1], 4)}"


def _label(name: str) -> str:
    return BASELINES[name].label if name in BASELINES else name


def _row_name(name: str) -> str:
    return BASELINES[name].phrase if name in BASELINES else name


def about(result: Mapping[str, Any]) -> str:
    """Data, references and tests in one paragraph."""
    splits = ", ".join(result["splits"])
    shared = (
        "" if result["speakers_apart"] else " Speakers were heard in training too (their clips are in several splits)."
    )
    return (
        f"{result['dataset']}, classes {', '.join(result['classes'])}; {result['n']} test clips of "
        f"{result['n_speakers']} speakers, pooled over {splits}; scored on human votes, whatever an arm learned "
        f"from.{shared} Intervals: {result['ci']['level']:.0%} over speakers, {result['ci']['method']}. "
        "Tests: signs of whole speakers flipped, two-sided, each quantity one family of Holm's correction; Wilcoxon's "
        "over speakers' means as a check."
    )


def markdown(result: Mapping[str, Any], title: str) -> str:
    """All tables, tests and sentences as one Markdown page."""
    parts = [f"# {escape(title)}", escape(about(result)), "## What is significant"]
    parts += [f"- {escape(line)}" for line in result["findings"]]
    if result["failed"]:
        parts += [
            "## Runs that failed",
            *(f"- {escape(name)}: {escape(why)}" for name, why in result["failed"].items()),
        ]
    for quantity, heading in HEADINGS.items():
        parts += [f"## {heading}", tables.markdown(table(result, quantity))]
    for family in dict.fromkeys(test["family"] for test in result["tests"]):
        of_family = [test for test in result["tests"] if test["family"] == family]
        parts += [f"## Tests: {family}", tables.markdown(tests_table(of_family))]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def text(result: Mapping[str, Any]) -> str:
    """The main table and the sentences, for the terminal."""
    body = tables.text(table(result, "js"), rules=(1, 1 + len(result["arms"])))
    return "\n".join([HEADINGS["js"], "", body, "", about(result), "", *result["findings"]])
