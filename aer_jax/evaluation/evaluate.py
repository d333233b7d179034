"""Evaluation: predictions against the human votes; one dict of metrics, two files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aer_jax.errors import UserError
from aer_jax.evaluation import baselines
from aer_jax.evaluation.ambiguity import ambiguity
from aer_jax.evaluation.intervals import LEVEL, METHOD, speaker_intervals
from aer_jax.evaluation.metrics import DEFINITIONS, by_class, pointwise, pooled, reliability
from aer_jax.evaluation.predictions import Prediction, checked, human_distributions
from aer_jax.evaluation.summary import by_ambiguity, summary
from aer_jax.files.atomic import plain, replace_text
from aer_jax.files.content_hash import seal

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset

CONSTANTS = ("uniform", "train_mean", "best_constant")


def evaluate(
    predictions: Sequence[Prediction],
    dataset: Dataset,
    *,
    split: str,
    probe: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Score predictions for a whole split against the dataset's human votes, whatever they were trained on.

    The order of the predictions does not matter. Intervals are over speakers. References are not smoothed.

    Args:
        probe: what a linear probe predicts for each utterance of the split, by id; its baseline is left out where None.

    Returns:
        What metrics.json holds: the metrics by name, n, n_speakers, split, `references` ("human"), `ci`,
        `baselines`, `by_ambiguity`, `by_class`, `reliability`, and `definitions` that say what each metric
        is. A metric without a meaning is None.

    Raises:
        UserError: the predictions do not cover exactly the split, are no distributions, or name other
            speakers than the dataset; or an utterance has no human vote for the dataset's classes.
    """
    predictions = checked(predictions, dataset, split)
    ids = [prediction.id for prediction in predictions]
    speakers_n = np.array([prediction.speaker for prediction in predictions])
    probs_nk = np.array([prediction.probs for prediction in predictions], np.float64)
    probs_nk /= probs_nk.sum(axis=1, keepdims=True)
    references_nk = human_distributions(dataset, ids)
    values = pointwise(references_nk, probs_nk)
    model = summary(values, speakers_n) | pooled(references_nk, probs_nk)
    model["ci"] |= {"level": LEVEL, "over": "speakers", "method": METHOD}
    levels = by_ambiguity(values, speakers_n, references_nk)
    probe_nk = None if probe is None else np.array([probe[id] for id in ids])
    rows, rows_by_level = _baselines(dataset, ids, references_nk, speakers_n, values["js"], probe_nk)
    curve = reliability(references_nk, probs_nk)
    return plain(
        model
        | {
            "n_speakers": len(np.unique(speakers_n)),
            "speakers_apart": dataset.speakers_apart,
            "references": "human",
            "split": split,
            "dataset": dataset.name,
            "classes": list(dataset.classes),
            "baselines": rows,
            "by_ambiguity": {
                level: row | {"baselines": {name: parts[level] for name, parts in rows_by_level.items()}}
                for level, row in levels.items()
            },
            "by_class": by_class(references_nk, probs_nk, dataset.classes),
            "reliability": {name: getattr(curve, name).tolist() for name in curve._fields},
            "definitions": DEFINITIONS,
        }
    )


def _baselines(
    dataset: Dataset,
    ids: Sequence[str],
    references_nk: np.ndarray,
    speakers_n: np.ndarray,
    js_n: np.ndarray,
    probe_nk: np.ndarray | None,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The row of each baseline, and the same by level of ambiguity; `js_n` is the model's, to compare with."""
    if not dataset.splits["train"]:
        raise UserError(f"the training split of {dataset.path} is empty; the train_mean baseline needs it.")
    # Sorted: not even the last bit of the mean depends on the order of the file.
    train_mean_k = human_distributions(dataset, sorted(dataset.splits["train"])).mean(axis=0)
    rows, levels = {}, {}
    predicted = baselines.predictions(references_nk, np.broadcast_to(train_mean_k, references_nk.shape), probe_nk)
    for name, baseline_nk in predicted.items():
        top_label = name != "uniform"
        values = pointwise(references_nk, baseline_nk, top_label)
        rows[name] = summary(values, speakers_n) | pooled(references_nk, baseline_nk, top_label)
        rows[name]["js_difference"] = _difference(js_n - values["js"], speakers_n)
        if name in CONSTANTS:
            rows[name]["distribution"] = dict(zip(dataset.classes, map(float, baseline_nk[0]), strict=True))
        levels[name] = by_ambiguity(values, speakers_n, references_nk)
    usable_n, values = baselines.split_half(dataset.votes, ids, dataset.classes)
    rows["split_half"] = summary(values, speakers_n[usable_n]) | {
        "accuracy": None,
        "accuracy_argmax": None,
        "reason": None if usable_n.any() else "no utterance has two whole votes, so none can be split",
        "js_difference": _difference(js_n[usable_n] - values["js"], speakers_n[usable_n]),
    }
    levels["split_half"] = by_ambiguity(values, speakers_n[usable_n], references_nk[usable_n])
    return {name: row | {"note": baselines.BASELINES[name].note} for name, row in rows.items()}, levels


def _difference(difference_n: np.ndarray, speakers_n: np.ndarray) -> dict[str, Any]:
    """How the JS of the model differs from that of a baseline on the same utterances: below 0 the model is better."""
    value = float(difference_n.mean()) if len(difference_n) else math.nan
    return {"value": value, "ci": speaker_intervals({"js": difference_n}, speakers_n)["js"]}


def write_evaluation(
    folder: Path,
    predictions: Sequence[Prediction],
    metrics: dict[str, Any],
    dataset: Dataset,
    inputs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write predictions.jsonl (sorted by id) and metrics.json into `folder`, each whole or not at all.

    Args:
        inputs: digests of what the metrics were made from; written into them beside that of the predictions, and the
            metrics then have a digest themselves, by which `read_evaluation` notices that a file was replaced.

    Returns:
        what metrics.json holds.

    Raises:
        UserError: as `evaluate`.
    """
    predictions = checked(predictions, dataset, metrics["split"])
    references_nk = human_distributions(dataset, [prediction.id for prediction in predictions])
    lines = []
    for prediction, reference_k, h in zip(predictions, references_nk, ambiguity(references_nk), strict=True):
        line = {
            "id": prediction.id,
            "speaker": prediction.speaker,
            "probs": dict(zip(dataset.classes, map(float, prediction.probs), strict=True)),
            "reference": dict(zip(dataset.classes, map(float, reference_k), strict=True)),
            "ambiguity": float(h),
        }
        lines.append(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = "".join(lines)
    replace_text(folder / "predictions.jsonl", written)
    metrics = plain(metrics)
    if inputs is not None:
        metrics = seal(metrics | {"inputs": {**inputs, "predictions": hashlib.sha256(written.encode()).hexdigest()}})
    text = json.dumps(metrics, indent=2, allow_nan=False, ensure_ascii=False)
    replace_text(folder / "metrics.json", text + "\n")
    return metrics
