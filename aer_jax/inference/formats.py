"""Predictions as text: JSON lines, CSV, or a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aer_jax.files.atomic import csv_line
from aer_jax.inference.prediction import Prediction, Window

LONGEST_NAME = 40  # a longer one is cut in the table, from the left


class Format(NamedTuple):
    """The first lines, and those of one prediction."""

    heading: list[str]
    lines: Callable[[Prediction], list[str]]


def jsonl(classes: Sequence[str], names: Sequence[str]) -> Format:
    """One object per recording."""
    return Format([], lambda prediction: [json.dumps(prediction.to_json())])


def csv(classes: Sequence[str], names: Sequence[str]) -> Format:
    """One line per recording, or per window of one in windows; what is unknown is empty."""
    bounds = [f"{name}_{end}" for name in classes for end in ("low", "high")]

    def lines(prediction: Prediction) -> list[str]:
        ends = [f"{p:.4f}" for pair in (prediction.interval or {}).values() for p in pair] or [""] * len(bounds)
        return [
            csv_line([prediction.file, f"{part.start:.3f}", f"{part.end:.3f}", *_digits(part, classes), *ends])
            for part in prediction.timeline or [prediction.whole]
        ]

    return Format([csv_line(["file", "start", "end", *classes, "ambiguity", *bounds])], lines)


def table(classes: Sequence[str], names: Sequence[str]) -> Format:
    """One line per recording, and an indented one per window.

    Args:
        classes: of the predictions.
        names: of all recordings, to align the columns.
    """
    width = min(LONGEST_NAME, max(map(len, names)))

    def lines(prediction: Prediction) -> list[str]:
        name = prediction.file
        name = name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
        rows = [(name, prediction.whole)]
        rows += [(f"  {part.start:.1f} to {part.end:.1f} s", part) for part in prediction.timeline]
        return [f"{name:<{width}}  {_shares(part, prediction.interval)}" for name, part in rows]

    return Format([], lines)


FORMATS = {"jsonl": jsonl, "csv": csv, "table": table}


def _digits(part: Window, classes: Sequence[str]) -> list[str]:
    if part.probs is None or part.ambiguity is None:
        return [""] * (len(classes) + 1)
    return [f"{p:.6f}" for p in (*part.probs.values(), part.ambiguity)]


def _shares(part: Window, interval: dict[str, tuple[float, float]] | None) -> str:
    if part.probs is None or part.ambiguity is None:
        return "silent"
    ends = {name: f" ({low:.2f} to {high:.2f})" for name, (low, high) in (interval or {}).items()}
    shares = [f"{label} {p:.3f}{ends.get(label, '')}" for label, p in part.probs.items()]
    return "  ".join([*shares, f"ambiguity {part.ambiguity:.2f}"])
