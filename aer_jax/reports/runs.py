"""Evaluated runs of a report, checked to be comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aer_jax.config import Config, load_config
from aer_jax.errors import UserError
from aer_jax.files.json_text import parse_json
from aer_jax.reports.evaluations import read_evaluation
from aer_jax.training.run import refuse_edited


@dataclass(frozen=True)
class EvaluatedRun:
    """One arm of a report.

    Attributes:
        name: of the directory; the parent's name before it where two runs would have the same.
        config: the resolved settings.
        environment: what environment.json says of machine and software.
        log: the lines of metrics.jsonl, training and validation.
        torn: lines of it that cannot be read, as a killed run leaves one; the page says how many.
        metrics: metrics.json of the evaluated split.
        predictions: the lines of predictions.jsonl, sorted by id.
    """

    name: str
    path: Path
    config: Config
    environment: dict[str, Any]
    log: list[dict[str, Any]]
    torn: int
    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


def load_runs(paths: Sequence[Path], split: str = "test") -> list[EvaluatedRun]:
    """Read run directories that were evaluated on the same utterances with the same references.

    Raises:
        UserError: a directory is no run, has no evaluation of `split`, has a damaged file, or was evaluated
            on other data than the first.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise UserError("a report needs at least one run directory; name it with --run.")
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(path.resolve().parts[-2:]) for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if twice := {str(path) for path in paths if paths.count(path) > 1}:
        raise UserError(f"{min(twice)} is named twice; name each run once.")
    runs = [_load(path, name, split) for path, name in zip(paths, names, strict=True)]
    for run in runs[1:]:
        _assert_same_data(runs[0], run, split)
    return runs


def best(runs: Sequence[EvaluatedRun]) -> EvaluatedRun:
    """The run with the lowest mean JS."""
    return min(runs, key=lambda run: run.metrics["js"])


def _load(path: Path, name: str, split: str) -> EvaluatedRun:
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} is not a run directory (it has no config.yaml); `aer-jax train` writes one.")
    metrics, predictions = read_evaluation(path, split)
    log = path / "metrics.jsonl"
    lines = [_parsed(line) for line in _lines(log)] if log.is_file() else []
    config, file = load_config(path / "config.yaml"), path / "environment.json"
    environment = _object(file, "train the run again") if file.is_file() else {}
    refuse_edited(path, config, environment)
    run = EvaluatedRun(
        name=name,
        path=path,
        config=config,
        environment=environment,
        log=[line for line in lines if line is not None],
        torn=lines.count(None),
        metrics=metrics,
        predictions=predictions,
    )
    again = f"run `aer-jax evaluate --run {path} --split {split}` again"
    missing = {"js", "ci", "baselines", "by_ambiguity", "classes", "n"} - set(run.metrics)
    if missing:
        raise UserError(f"{path}/evaluation/{split}/metrics.json lacks {', '.join(sorted(missing))}; {again}.")
    if any(not {"speaker", "reference", "ambiguity"} <= line.keys() for line in predictions):
        raise UserError(f"{path}/evaluation/{split}/predictions.jsonl lacks speakers or references; {again}.")
    return run


def _assert_same_data(first: EvaluatedRun, other: EvaluatedRun, split: str) -> None:
    both = f"{first.path} and {other.path}"
    one, two = first.metrics, other.metrics
    if one["classes"] != two["classes"]:
        classes = " and ".join(", ".join(metrics["classes"]) for metrics in (one, two))
        raise UserError(f"{both} have different classes ({classes}); report them one by one.")
    references = [{p["id"]: (p["speaker"], p["reference"]) for p in run.predictions} for run in (first, other)]
    trained = [metrics["baselines"]["train_mean"]["distribution"] for metrics in (one, two)]
    if references[0] != references[1] or trained[0] != trained[1]:
        raise UserError(
            f"{both} were evaluated on different data ({one['n']} utterances of {one['dataset']} in "
            f"{first.config.data.dataset or '?'}, {two['n']} of {two['dataset']} in "
            f"{other.config.data.dataset or '?'}); a table needs one {split} split, report them one by one."
        )


def _object(path: Path, fix: str) -> dict[str, Any]:
    value = _parsed(path.read_text(encoding="utf-8", errors="replace"))
    if value is None:
        raise UserError(f"{path} is not a JSON object; {fix}.")
    return value


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n")


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
