"""The rows of the main table, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aer_jax.config import LabelsConfig
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.evaluation.intervals import not_available
from aer_jax.files import tables
from aer_jax.files.tables import NONE, number, percent
from aer_jax.reports.finding import few_speakers
from aer_jax.reports.runs import EvaluatedRun, load_runs

# Column -> heading, and whether less is better.
COLUMNS = {
    "js": ("JS", True),
    "bc": ("BC", False),
    "r2": ("R²", False),
    "ece": ("ECE", True),
    "accuracy": ("Accuracy, any tie counts", False),
    "accuracy_argmax": ("Accuracy, argmax", False),
    "uar": ("UAR", False),
}


@dataclass(frozen=True)
class Row:
    """An arm or a baseline.

    Attributes:
        arm: place among the arms, or None for a baseline.
        learned_from: whose votes an arm was trained on; "" for a baseline.
        values: the columns of COLUMNS, None where a metric has no meaning.
        interval: 95% of js over speakers, or None.
        n_speakers: of the utterances that are scored.
        change: js relative to the training mean's, -0.2 being a fifth below; None where that is 0.
        by_ambiguity: name of the bin -> its n, js and ci.
    """

    name: str
    arm: int | None
    learned_from: str
    values: dict[str, float | None]
    interval: list[float] | None
    n_speakers: int
    change: float | None
    by_ambiguity: dict[str, dict[str, Any]]


def rows(runs: Sequence[EvaluatedRun]) -> list[Row]:
    """Arms in the order given, then the baselines of their common test data."""
    reference = runs[0].metrics["baselines"]["train_mean"]["js"]

    def row(name: str, arm: int | None, learned_from: str, metrics: dict, bins: dict) -> Row:
        js = metrics["js"]
        return Row(
            name=name,
            arm=arm,
            learned_from=learned_from,
            values={column: metrics.get(column) for column in COLUMNS},
            interval=metrics["ci"]["js"],
            n_speakers=metrics["n_speakers"],
            change=js / reference - 1 if js is not None and reference else None,
            by_ambiguity=bins,
        )

    table_rows = [
        row(
            run.name,
            i,
            learned_from(run.config.labels, run.environment.get("synthetic_weight")),
            run.metrics,
            run.metrics["by_ambiguity"],
        )
        for i, run in enumerate(runs)
    ]
    for key, baseline in BASELINES.items():
        if key not in runs[0].metrics["baselines"]:
            continue  # evaluated before there was such a row
        bins = {b: part["baselines"][key] for b, part in runs[0].metrics["by_ambiguity"].items()}
        table_rows.append(row(baseline.label, None, "", runs[0].metrics["baselines"][key], bins))
    return table_rows


def learned_from(labels: LabelsConfig, weight: float | None = None) -> str:
    """Label source of a run in words; `weight` is the learned one, where it was learned."""
    if labels.source == "combined":
        if isinstance(labels.synthetic_weight, str):
            return "human + synthetic (learned weight" + (")" if weight is None else f" {weight:.2g})")
        return "human + synthetic" + ("" if labels.synthetic_weight == 1 else f" (weight {labels.synthetic_weight:g})")
    return labels.source


def span(interval: Sequence[float] | None, n_speakers: int, value: float | None = 0.0, digits: int = 3) -> str:
    """An interval as low–high; an en dash where there is no value either, else why there is none."""
    if interval is None:
        return NONE if value is None else not_available(n_speakers)
    return f"{number(interval[0], digits)}{NONE}{number(interval[1], digits)}"


SHARED = (
    "These speakers were heard in training too (their clips are in several splits): how well unknown voices are "
    "judged, this does not say."
)


TIES = (
    "Accuracy and UAR: where classes of a reference are tied for the most votes, any of tied top classes counts as "
    "right; argmax: only the first."
)


def about(runs: Sequence[EvaluatedRun]) -> str:
    """The quantity, the references and the data of the main table, in one line."""
    metrics = runs[0].metrics
    # The method of versions that did not name it.
    old = "" if metrics["ci"].get("method") else " (percentile bootstrap, too narrow; evaluate the run again)"
    return (
        f"JS: mean Jensen-Shannon divergence (base 2, lower is better) to the votes of the human listeners; "
        f"{metrics['split']} split of {metrics['dataset']}, {metrics['n']} clips, {metrics['n_speakers']} "
        f"speakers; 95% intervals over speakers{old}. {TIES}" + ("" if metrics["speakers_apart"] else f" {SHARED}")
    )


def summary_table(paths: Sequence[Path], split: str = "test") -> str:
    """The main table as plain text: the runs next to the baselines.

    Raises:
        UserError: as `load_runs`.
    """
    runs = load_runs(paths, split)
    lines = [["", "JS", "95% interval", "vs mean", *_SHORT]]
    for row in rows(runs):
        js = row.values["js"]
        name = f"{row.name}, from {row.learned_from} votes" if row.learned_from else row.name
        cells = [name, number(js), span(row.interval, row.n_speakers, js), percent(row.change)]
        lines.append([*cells, *(number(row.values[column]) for column in _SHORT.values())])
    warning = few_speakers(runs[0].metrics["n_speakers"])
    return "\n".join([
        tables.text(lines, rules=(1, 1 + len(runs))), "", about(runs), *([warning] if warning else []),
    ])  # fmt: skip


_SHORT = {"BC": "bc", "R²": "r2", "ECE": "ece", "Acc., ties": "accuracy", "Acc.": "accuracy_argmax", "UAR": "uar"}
