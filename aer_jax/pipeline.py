"""A trained run, evaluated: its best model's predictions for a split, scored against human votes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.evaluation.evaluate import Prediction, evaluate, write_evaluation
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.inference import band as bands
from aer_jax.training.predictor import Predictor
from aer_jax.training.processes import is_first
from aer_jax.training.run import Run, open_run


def evaluate_run(path: str | Path, split: str = "test") -> dict[str, Any]:
    """Predict a split of a run's dataset and write `evaluation/<split>/` in the run directory.

    The validation split is predicted once beside it, for the run's `band.json`.

    Returns:
        what metrics.json holds.

    Raises:
        UserError: the run, its dataset or its base is missing, or has no best checkpoint yet.
    """
    run = open_run(path)
    dataset = open_dataset(run.config.data.dataset)
    ids = dataset.splits[split]
    predictor = Predictor(run)
    probs_nk = _shares(predictor, dataset, ids)
    predictions = [
        Prediction(id, dataset.utterances[id].speaker, tuple(probs_k.tolist()))
        for id, probs_k in zip(ids, probs_nk, strict=True)
    ]
    metrics = evaluate(predictions, dataset, split=split)
    band = _band(run, predictor, dataset, probs_nk if split == "validation" else None)
    if band is not None and split != "validation":
        metrics["band"] = band.kept(human_distributions(dataset, ids), probs_nk)
    if is_first():
        write_evaluation(run.evaluation(split), predictions, metrics, dataset)
    return metrics


def _shares(predictor: Predictor, dataset: Dataset, ids: list[str]) -> np.ndarray:
    # Each row is divided by its float64 sum: float32 sums to 1 only to its own precision.
    probs_nk = predictor.utterances(dataset, ids).astype(float)
    return probs_nk / probs_nk.sum(axis=1, keepdims=True)


def _band(run: Run, predictor: Predictor, dataset: Dataset, probs_nk: np.ndarray | None) -> bands.Band | None:
    """The band of the run's best checkpoint; fitted anew where validation predictions are given or it has none yet."""
    known = bands.load(run.path, predictor.step, dataset.classes) if probs_nk is None else None
    ids = dataset.splits["validation"]
    if known is not None or not ids:
        return known
    if probs_nk is None:
        probs_nk = _shares(predictor, dataset, ids)
    speakers = [dataset.utterances[id].speaker for id in ids]
    band = bands.fit(human_distributions(dataset, ids), probs_nk, speakers, dataset.classes, predictor.step)
    if is_first():
        bands.save(band, run.path)
    return band
