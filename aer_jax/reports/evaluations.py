"""Stored evaluation of a run, with a check that metrics and predictions belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from aer_jax.config import load_config
from aer_jax.errors import UserError
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.predictions import read_predictions, shares
from aer_jax.files.content_hash import file_sha256, folder_digest, is_intact
from aer_jax.files.json_text import parse_json
from aer_jax.labels.votes import normalise
from aer_jax.training.input_hashes import dataset_hash


class Evaluation(NamedTuple):
    """Contents of metrics.json and predictions.jsonl."""

    metrics: dict[str, Any]
    predictions: list[dict[str, Any]]


def read_evaluation(run: Path, split: str) -> Evaluation:
    """Read what `aer-jax evaluate` wrote, and compare the two files with each other and with the run as it is now.

    Evaluations of older versions hold no digests; of these the divergence is computed again.

    Raises:
        UserError: there is none, a file is damaged or was changed, or it is not of this run's best checkpoint or its
            dataset any more.
    """
    folder = run / "evaluation" / split
    again = f"run `aer-jax evaluate --run {run}" + ("`" if split == "test" else f" --split {split}`")
    for file in ("metrics.json", "predictions.jsonl"):
        if not (folder / file).is_file():
            raise UserError(f"{run} has no evaluation of the {split} split ({folder / file}); {again} first.")
    again += " again"
    metrics_file, predictions_file = folder / "metrics.json", folder / "predictions.jsonl"
    metrics = _parsed(_content(metrics_file, again))
    if metrics is None:
        raise UserError(f"{metrics_file} is not a JSON object; {again}.")
    predictions = read_predictions(predictions_file, again)
    if is_intact(metrics) is False:
        raise UserError(f"{metrics_file} is not what was written; {again}.")
    inputs = metrics.get("inputs", {})
    if not isinstance(inputs, dict):
        raise UserError(f"{metrics_file} does not say what it was made from; {again}.")
    if "predictions" in inputs and file_sha256(predictions_file) != inputs["predictions"]:
        raise UserError(f"{metrics_file} is of different data than the predictions next to it; {again}.")
    if not _is_js_of(metrics, predictions):
        raise UserError(
            f"{metrics_file} is of different data than the predictions next to it, whose JS is another; {again}."
        )
    _refuse_changed(run, inputs, again)
    return Evaluation(metrics, predictions)


def _refuse_changed(run: Path, inputs: dict[str, Any], again: str) -> None:
    """Refuse an evaluation of another checkpoint or dataset, where these still exist."""
    best = run / "best"
    steps = [folder for folder in best.iterdir() if folder.name.isdigit()] if best.is_dir() else []
    if steps and "checkpoint" in inputs:
        latest = max(steps, key=lambda folder: int(folder.name))
        if folder_digest(latest) != inputs["checkpoint"]:
            raise UserError(f"{run} has another best checkpoint than when it was evaluated; {again}.")
    dataset = Path(load_config(run / "config.yaml").data.dataset)
    if "dataset" in inputs and (dataset / "dataset.json").is_file() and dataset_hash(dataset) != inputs["dataset"]:
        raise UserError(
            f"{dataset} is not, or no longer, the dataset that {run} was evaluated on; put that one back, or {again}."
        )


def _content(path: Path, again: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {again}.") from None


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_js_of(metrics: dict[str, Any], predictions: list[dict[str, Any]]) -> bool:
    """Whether the mean JS is that of the predictions; True where they hold no references."""
    if not all("reference" in line for line in predictions):
        return True
    classes = list(predictions[0]["probs"])
    if any(line[key].keys() != set(classes) for line in predictions for key in ("probs", "reference")):
        return False
    js, probs_nk = metrics.get("js"), normalise(shares(predictions, "probs", classes))
    if not isinstance(js, int | float):
        return js is None
    return abs(js_divergence(shares(predictions, "reference", classes), probs_nk).mean() - js) < 1e-6
