"""Evaluation of predictions against human votes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aer_jax.errors import UserError
from aer_jax.evaluation import baselines
from aer_jax.evaluation.intervals import LEVEL, METHOD
from aer_jax.evaluation.metrics import DEFINITIONS, pointwise, reliability
from aer_jax.evaluation.pooled import by_class, pooled
from aer_jax.evaluation.predictions import checked, human_distributions, write_predictions
from aer_jax.evaluation.summary import by_ambiguity, difference, summary
from aer_jax.files.atomic import plain, replace_text
from aer_jax.files.content_hash import seal

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset

CONSTANTS = ("uniform", "train_mean", "best_constant")
Probs = Mapping[str, Sequence[float]]  # utterance -> shares in the order of the dataset's classes


def evaluate(probs: Probs, dataset: Dataset, *, split: str, probe: Probs | None = None) -> dict[str, Any]:
    """Score predictions for a whole split against the dataset's human votes.

    Intervals are over speakers. References are not smoothed.

    Args:
        probs: the predictions, in any order.
        probe: those of a linear probe; its baseline is left out where None.

    Returns:
        What metrics.json holds: the metrics by name, n, n_speakers, split, `references` ("human"), `ci`,
        `baselines`, `by_ambiguity`, `by_class`, `reliability`, and `definitions` that say what each metric
        is. A metric without a meaning is None.

    Raises:
        UserError: the predictions do not cover exactly the split or are no distributions; or an utterance has no human
            vote for the dataset's classes.
    """
    ids, probs_nk = checked(probs, dataset, split)
    speakers_n = np.array([dataset.utterances[id].speaker for id in ids])
    references_nk = human_distributions(dataset, ids)
    values = pointwise(references_nk, probs_nk)
    model = summary(values, speakers_n) | pooled(references_nk, probs_nk)
    model["ci"] |= {"level": LEVEL, "over": "speakers", "method": METHOD}
    levels = by_ambiguity(values, speakers_n, references_nk)
    probe_nk = None if probe is None else np.array([probe[id] for id in ids])
    rows, rows_by_level = _baselines(dataset, ids, references_nk, speakers_n, values["js"], probe_nk)
    about = {
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
        "reliability": {name: of_b.tolist() for name, of_b in reliability(references_nk, probs_nk)._asdict().items()},
        "definitions": DEFINITIONS,
    }
    return plain(model | about)


def write_evaluation(
    folder: Path, probs: Probs, metrics: dict[str, Any], dataset: Dataset, inputs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write predictions.jsonl (sorted by id) and metrics.json into `folder`, each whole or not at all.

    Args:
        inputs: digests of what the metrics were made from; written into them with that of the predictions, and the
            metrics then have a digest themselves, by which `read_evaluation` notices that a file was replaced.

    Returns:
        what metrics.json holds.

    Raises:
        UserError: as `evaluate`.
    """
    ids, probs_nk = checked(probs, dataset, metrics["split"])
    speakers = [dataset.utterances[id].speaker for id in ids]
    file, references_nk = Path(folder) / "predictions.jsonl", human_distributions(dataset, ids)
    digest = write_predictions(file, ids, speakers, dataset.classes, probs_nk, references_nk)
    metrics = plain(metrics)
    if inputs is not None:
        metrics = seal(metrics | {"inputs": {**inputs, "predictions": digest}})
    text = json.dumps(metrics, indent=2, allow_nan=False, ensure_ascii=False)
    replace_text(file.with_name("metrics.json"), text + "\n")
    return metrics


def _baselines(
    dataset: Dataset,
    ids: Sequence[str],
    references_nk: np.ndarray,
    speakers_n: np.ndarray,
    js_n: np.ndarray,
    probe_nk: np.ndarray | None,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Rows of the baselines, in all and by ambiguity; `js_n` is the model's, to compare with."""
    if not dataset.splits["train"]:
        raise UserError(f"the training split of {dataset.path} is empty; the train_mean baseline needs it.")
    # Sorted: not even the last bit of the mean depends on the order of the file.
    train_mean_k = human_distributions(dataset, sorted(dataset.splits["train"])).mean(axis=0)
    predicted = baselines.predictions(references_nk, np.broadcast_to(train_mean_k, references_nk.shape), probe_nk)
    values = {name: pointwise(references_nk, p_nk, name != "uniform") for name, p_nk in predicted.items()}
    values["split_half"] = baselines.split_half(dataset.votes.whole.counts(ids, dataset.classes))
    rows = {name: summary(of, speakers_n) | {"note": baselines.BASELINES[name].note} for name, of in values.items()}
    for name, row in rows.items():
        row["js_difference"] = difference(js_n - values[name]["js"], speakers_n)
    for name, p_nk in predicted.items():
        rows[name] |= pooled(references_nk, p_nk, name != "uniform")
    for name in CONSTANTS:
        rows[name]["distribution"] = dict(zip(dataset.classes, predicted[name][0].tolist(), strict=True))
    reason = None if rows["split_half"]["n"] else "no utterance has two whole votes, so none can be split"
    rows["split_half"] |= {"accuracy": None, "accuracy_argmax": None, "reason": reason}
    return rows, {name: by_ambiguity(of, speakers_n, references_nk) for name, of in values.items()}
