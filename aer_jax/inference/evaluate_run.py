"""Evaluation of a trained run: its best model's predictions for a split, scored against human votes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.evaluate import evaluate, write_evaluation
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.files.content_hash import folder_digest
from aer_jax.files.locks import locked
from aer_jax.inference import prediction_intervals
from aer_jax.inference.prediction_intervals import PredictionIntervals
from aer_jax.inference.probe import probe_predictions
from aer_jax.labels.votes import normalise
from aer_jax.training.distributed import is_first
from aer_jax.training.input_hashes import dataset_hash
from aer_jax.training.predictor import Predictor, refuse_other_classes
from aer_jax.training.readout import load_left_out
from aer_jax.training.run import Run, open_run
from aer_jax.training.training_data import compare


def evaluate_run(path: str | Path, split: str = "test") -> dict[str, Any]:
    """Predict a split of a run's dataset and write `evaluation/<split>/` in the run directory.

    Where a readout alone was fitted, which learns from the validation split too, clips that it learned from are scored
    by the predictions of heads that were fitted without their speakers.

    The validation split is predicted once more, for the run's prediction intervals.

    Returns:
        what metrics.json holds.

    Raises:
        UserError: the run, its dataset or its base is missing, or has no best checkpoint yet; another process
            evaluates it; or its dataset has changed so that the split holds clips or speakers that were trained on.
    """
    run = open_run(path)
    with locked(run.path / ".evaluate.lock", f"{run.path} is being evaluated") if is_first() else nullcontext():
        return _evaluate(run, split)


def _evaluate(run: Run, split: str) -> dict[str, Any]:
    dataset = _open_dataset(run)
    refuse_other_classes(run, dataset)
    relation = compare(run, dataset, split)
    if relation.note and is_first():
        print(relation.note, file=sys.stderr)
    ids = dataset.splits[split]
    predictor = Predictor(run)
    probs_nk = _predict(predictor, dataset, ids, relation.same)
    probs = dict(zip(ids, probs_nk, strict=True))
    probe = probe_predictions(run, dataset, split, predictor.audio_statistics)
    metrics = evaluate(probs, dataset, split=split, probe=probe)
    if split == "validation":
        _fit_intervals(predictor, dataset, probs_nk)
    elif intervals := _intervals(predictor, dataset, relation.same):
        metrics["band"] = intervals.coverage(human_distributions(dataset, ids), probs_nk)
    if is_first():
        inputs = {
            "dataset": dataset_hash(dataset.path),
            "trained_on": relation.note or "this dataset",
            "step": predictor.step,
            "checkpoint": folder_digest(run.path / "best" / str(predictor.step)),
        }
        metrics = write_evaluation(run.evaluation(split), probs, metrics, dataset, inputs)
    return metrics


def _open_dataset(run: Run) -> Dataset:
    path = Path(run.config.data.dataset)
    if not (path / "dataset.json").is_file():
        raise UserError(
            f"{path}, the dataset of {run.path}, is not there; if it was moved, set data.dataset in "
            f"{run.path / 'config.yaml'} to its new place."
        )
    return open_dataset(path)


def _predict(predictor: Predictor, dataset: Dataset, ids: Sequence[str], same: bool) -> np.ndarray:
    # A fitted readout need not have learned from all of a split: see labels.missing.
    probs = load_left_out(predictor.run.path) if same else {}
    if others := [id for id in ids if id not in probs]:
        # In float64: float32 sums to 1 only to its own precision.
        others_nk = normalise(predictor.predict_utterances(dataset, others).astype(float))
        probs |= dict(zip(others, others_nk.tolist(), strict=True))
    return np.array([probs[id] for id in ids])


def _intervals(predictor: Predictor, dataset: Dataset, same: bool) -> PredictionIntervals | None:
    known = prediction_intervals.load(predictor.run.path, predictor.step, dataset.classes)
    ids = dataset.splits["validation"]
    if known is not None or not ids:
        return known
    try:
        compare(predictor.run, dataset, "validation")
    except UserError:
        return None  # on clips that were trained on they would be too narrow
    return _fit_intervals(predictor, dataset, _predict(predictor, dataset, ids, same))


def _fit_intervals(predictor: Predictor, dataset: Dataset, probs_nk: np.ndarray) -> PredictionIntervals:
    ids = dataset.splits["validation"]
    speakers = [dataset.utterances[id].speaker for id in ids]
    references_nk = human_distributions(dataset, ids)
    intervals = prediction_intervals.fit(references_nk, probs_nk, speakers, dataset.classes, predictor.step)
    if is_first():
        prediction_intervals.save(intervals, predictor.run.path)
    return intervals
