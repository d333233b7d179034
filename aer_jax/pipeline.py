"""A trained run, evaluated: its best model's predictions for a split, scored against human votes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aer_jax.data.dataset import open_dataset
from aer_jax.evaluation.evaluate import Prediction, evaluate, write_evaluation
from aer_jax.training.predictor import Predictor
from aer_jax.training.processes import is_first
from aer_jax.training.run import open_run


def evaluate_run(path: str | Path, split: str = "test") -> dict[str, Any]:
    """Predict a split of a run's dataset and write `evaluation/<split>/` in the run directory.

    Returns:
        what metrics.json holds.

    Raises:
        UserError: the run, its dataset or its base is missing, or has no best checkpoint yet.
    """
    run = open_run(path)
    dataset = open_dataset(run.config.data.dataset)
    ids = dataset.splits[split]
    probs_nk = Predictor(run).utterances(dataset, ids)
    # Each row is divided by its float64 sum: float32 sums to 1 only to its own precision.
    predictions = [
        Prediction(id, dataset.utterances[id].speaker, tuple((probs_k / probs_k.sum()).tolist()))
        for id, probs_k in zip(ids, probs_nk.astype(float), strict=True)
    ]
    metrics = evaluate(predictions, dataset, split=split)
    if is_first():
        write_evaluation(run.evaluation(split), predictions, metrics, dataset)
    return metrics
