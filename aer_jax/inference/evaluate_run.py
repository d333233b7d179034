"""A trained run, evaluated: its best model's predictions for a split, scored against human votes."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.evaluate import evaluate, write_evaluation
from aer_jax.evaluation.linear_probe import VERSION, choose_l2, expand, fit, fit_coordinates, fit_probe
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.evaluation.projection import gather, load_parts, sentence
from aer_jax.files.atomic import replace_text, user_cache
from aer_jax.files.content_hash import folder_digest, is_intact, seal
from aer_jax.files.json_text import parse_json
from aer_jax.files.locks import locked
from aer_jax.inference import band as bands
from aer_jax.training.distributed import fetch, is_first
from aer_jax.training.input_hashes import dataset_hash
from aer_jax.training.predictor import Predictor, refuse_other_classes
from aer_jax.training.readout import load_left_out
from aer_jax.training.run import Run, open_run
from aer_jax.training.training_data import compare

log = logging.getLogger(__name__)


def evaluate_run(path: str | Path, split: str = "test") -> dict[str, Any]:
    """Predict a split of a run's dataset and write `evaluation/<split>/` in the run directory.

    Where a readout alone was fitted, which learns from the validation split too, clips that it learned from are scored
    by what heads that had not heard their speakers said.

    The validation split is predicted once beside it, for the run's `band.json`.

    Returns:
        what metrics.json holds.

    Raises:
        UserError: the run, its dataset or its base is missing, or has no best checkpoint yet; another process
            evaluates it; or its dataset has changed so that the split holds clips or speakers that were trained on.
    """
    run = open_run(path)
    with locked(run.path / ".evaluate.lock", f"{run.path} is being evaluated") if is_first() else nullcontext():
        return _evaluate(run, split)


def _dataset_of(run: Run) -> Dataset:
    path = Path(run.config.data.dataset)
    if not (path / "dataset.json").is_file():
        raise UserError(
            f"{path}, the dataset of {run.path}, is not there; where it has moved, name its place as data.dataset in "
            f"{run.path / 'config.yaml'}."
        )
    return open_dataset(path)


def _evaluate(run: Run, split: str) -> dict[str, Any]:
    dataset = _dataset_of(run)
    refuse_other_classes(run, dataset)
    relation = compare(run, dataset, split)
    if relation.note and is_first():
        print(relation.note, file=sys.stderr)
    ids = dataset.splits[split]
    predictor = Predictor(run)
    probs_nk = _shares(run, predictor, dataset, ids, relation.same)
    probs = dict(zip(ids, probs_nk, strict=True))
    probe = linear_probe(dataset, split, predictor.audio_statistics, probed_base(run))
    metrics = evaluate(probs, dataset, split=split, probe=probe)
    band = _band(run, predictor, dataset, probs_nk if split == "validation" else None, relation.same)
    if band is not None and split != "validation":
        metrics["band"] = band.kept(human_distributions(dataset, ids), probs_nk)
    if is_first():
        inputs = {
            "dataset": dataset_hash(dataset.path),
            "trained_on": relation.note or "this dataset",
            "step": predictor.step,
            "checkpoint": folder_digest(run.path / "best" / str(predictor.step)),
        }
        metrics = write_evaluation(run.evaluation(split), probs, metrics, dataset, inputs)
    return metrics


def _shares(run: Run, predictor: Predictor, dataset: Dataset, ids: list[str], same: bool) -> np.ndarray:
    # A readout that learned from clips is judged on them by what it says of speakers left out. It need not have learned
    # from all of a split: see labels.missing.
    probs = load_left_out(run.path) if same else {}
    if others := [id for id in ids if id not in probs]:
        # Each row is divided by its float64 sum: float32 sums to 1 only to its own precision.
        others_nk = predictor.predict_utterances(dataset, others).astype(float)
        probs |= dict(zip(others, (others_nk / others_nk.sum(axis=1, keepdims=True)).tolist(), strict=True))
    return np.array([probs[id] for id in ids])


def _band(
    run: Run, predictor: Predictor, dataset: Dataset, probs_nk: np.ndarray | None, same: bool
) -> bands.Band | None:
    """The band of the run's best checkpoint; fitted anew where validation predictions are given or it has none yet."""
    known = bands.load(run.path, predictor.step, dataset.classes) if probs_nk is None else None
    ids = dataset.splits["validation"]
    if known is not None or not ids:
        return known
    if probs_nk is None:
        try:
            compare(run, dataset, "validation")
        except UserError:
            return None  # of clips that were trained on the band would be too narrow
        probs_nk = _shares(run, predictor, dataset, ids, same)
    speakers = [dataset.utterances[id].speaker for id in ids]
    band = bands.fit(human_distributions(dataset, ids), probs_nk, speakers, dataset.classes, predictor.step)
    if is_first():
        bands.save(band, run.path)
    return band


def probed_base(run: Run) -> str:
    """What the features of a linear probe depend on: the base, its type, and how much of a clip it hears."""
    return f"{run.environment['base']} {run.config.model.dtype} {run.config.data.max_seconds}"


def _probe_places(dataset: Dataset, split: str, base: str) -> list[Path]:
    # dataset.json holds the hashes of audio, votes and splits.
    key = hashlib.sha256(f"{VERSION} {base} ".encode() + (dataset.path / "dataset.json").read_bytes()).hexdigest()
    name = f"linear_probe_{split}_{key[:16]}.json"
    return [dataset.path / name, user_cache() / name]


def read_probe(dataset: Dataset, split: str, base: str) -> dict[str, list[float]]:
    """What `linear_probe` kept: utterance -> its prediction; empty where it kept nothing."""
    probs: dict[str, list[float]] = {}
    for path in _probe_places(dataset, split, base):
        with suppress(OSError, ValueError, TypeError, KeyError):
            stored = parse_json(path.read_bytes())
            probs |= stored["probs"] if is_intact(stored) else {}
    return probs


def linear_probe(
    dataset: Dataset,
    split: str,
    features: Callable[[Dataset, Sequence[str]], Iterator[tuple[np.ndarray, np.ndarray]]],
    base: str,
) -> dict[str, list[float]]:
    """What a linear probe of the frozen audio tower predicts for each utterance of a split.

    All runs on the same dataset and base share it: it is kept in `linear_probe_*.json` in the dataset's directory, or
    in the user's cache where that cannot be written.

    It learns from the clips that a readout alone learns from, all of train and validation split, but always from human
    votes, with its penalty chosen on the validation split and without a temperature.

    Args:
        features: (dataset, ids) -> the tower's statistics, in blocks; see `FeatureBlocks`.
        base: what else these depend on, see `probed_base`.
    """
    probs = read_probe(dataset, split, base)
    if fetch(np.array([probs.keys() >= set(dataset.splits[split])])).all():  # of all processes: they hear together
        return probs
    blocks = functools.partial(features, dataset)
    parts = [sorted(dataset.splits[part]) for part in ("train", "validation")]
    (train_nf, validation_nf), projection = load_parts(parts, blocks)
    if is_first():
        print(f"linear probe: {sentence(sum(map(len, parts)), projection)}", file=sys.stderr)
    train_nk, validation_nk = (human_distributions(dataset, ids) for ids in parts)
    # What is evaluated must be unheard, the validation split too.
    learn = choose_l2 if split == "validation" else fit_probe
    probe = learn(train_nf, train_nk, validation_nf, validation_nk, fit if projection is None else fit_coordinates)
    if projection is not None:
        probe = expand(probe, projection)
    ids = dataset.splits[split]
    probs = dict(zip(ids, gather(ids, blocks, probe).tolist(), strict=True))
    if is_first():
        _keep(_probe_places(dataset, split, base), json.dumps(seal({"l2": probe.l2, "probs": probs})) + "\n")
    return probs


def _keep(places: Sequence[Path], text: str) -> None:
    """Write a file in the first of some places that can be written."""
    for path in places:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
            return
        except OSError as error:
            log.warning("%s cannot be written (%s)", path, error)
