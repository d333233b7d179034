"""What all runs of an experiment are scored on: the test utterances of all its splits, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation import baselines
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.experiments.settings import Cell
from aer_jax.files.content_hash import is_intact
from aer_jax.files.json_text import parse_json
from aer_jax.reports.evaluations import read_evaluation
from aer_jax.training.targets import label_distributions


@dataclass(frozen=True)
class Tested:
    """The pooled test parts, and what the listeners heard there.

    Attributes:
        datasets: split -> its dataset; votes, classes and audio are the same in all.
        ids: the utterances, split by split.
        speakers_n: the speaker of each [N].
        references_nk: human distributions, not smoothed [N, K].
    """

    datasets: Mapping[str, Dataset]
    ids: list[str]
    speakers_n: np.ndarray
    references_nk: np.ndarray = field(repr=False)

    @property
    def dataset(self) -> Dataset:
        """Any of them, for what is the same in all."""
        return next(iter(self.datasets.values()))


def pool(datasets: Mapping[str, Dataset]) -> Tested:
    """Put the test parts of all splits side by side.

    Raises:
        UserError: an utterance is tested by two splits.
    """
    split_of: dict[str, str] = {}
    for split, dataset in datasets.items():
        for id in dataset.splits["test"]:
            if id in split_of:
                raise UserError(
                    f"{id} is in the test part of {split_of[id]} and of {split}; each speaker is tested once."
                )
            split_of[id] = split
    ids, dataset = list(split_of), next(iter(datasets.values()))
    speakers_n = np.array([dataset.utterances[id].speaker for id in ids])
    return Tested(datasets, ids, speakers_n, human_distributions(dataset, ids))


def predictions(tested: Tested, cells: Sequence[Cell]) -> np.ndarray:
    """What the runs of one arm and seed, one a split, predict: [N, K].

    Raises:
        UserError: a prediction is missing.
    """
    probs: dict[str, list[float]] = {}
    for cell in cells:
        for line in read_evaluation(Path(cell.config.out), "test").predictions:
            if line["probs"].keys() != set(tested.dataset.classes):
                raise UserError(
                    f"{cell.config.out} predicts other classes than the dataset's; remove it to run it again."
                )
            probs[line["id"]] = [line["probs"][name] for name in tested.dataset.classes]
    if missing := [id for id in tested.ids if id not in probs]:
        raise UserError(f"{cells[0].config.out} and the like have no prediction for {missing[0]}; evaluate them again.")
    probs_nk = np.array([probs[id] for id in tested.ids], float)
    return probs_nk / probs_nk.sum(axis=1, keepdims=True)


def own_labels(tested: Tested, cells: Sequence[Cell]) -> np.ndarray:
    """The distributions of the kind that an arm was trained on, as the paper scores it: [N, K]."""
    parts = [
        label_distributions(dataset, dataset.splits["test"], cell.config.labels)
        for cell in cells
        if (dataset := tested.datasets[cell.split])
    ]
    return np.concatenate(parts)


def baseline_predictions(tested: Tested, cells: Sequence[Cell]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, predictions [N, K]) of the baselines that predict; what is learned is learned for each split.

    Args:
        tested: the data.
        cells: the finished runs of one arm and seed, for the linear probe beside them.
    """
    references_nk = tested.references_nk
    n, k = references_nk.shape
    yield "uniform", np.full((n, k), 1 / k)
    means = []
    for dataset in tested.datasets.values():
        mean_k = human_distributions(dataset, sorted(dataset.splits["train"])).mean(axis=0)
        means.append(np.broadcast_to(mean_k, (len(dataset.splits["test"]), k)))
    yield "train_mean", np.concatenate(means)
    if (probe_nk := _linear_probe(tested, cells)) is not None:
        yield "linear_probe", probe_nk
    yield "best_constant", np.broadcast_to(baselines.best_constant(references_nk), (n, k))
    yield "oracle_majority", baselines.oracle_majority(references_nk)


def _linear_probe(tested: Tested, cells: Sequence[Cell]) -> np.ndarray | None:
    """What `evaluate` kept beside each dataset, of the base whose score stands in the run's metrics."""
    found = []
    for cell in cells:
        dataset = tested.datasets[cell.split]
        metrics = read_evaluation(Path(cell.config.out), "test").metrics
        js = metrics["baselines"].get("linear_probe", {}).get("js")
        ids = dataset.splits["test"]
        references_nk = human_distributions(dataset, ids)
        for file in dataset.path.glob("linear_probe_test_*.json"):
            stored = parse_json(file.read_bytes())
            if is_intact(stored) is False:
                continue
            probs = stored["probs"]
            probs_nk = np.array([probs[id] for id in ids])
            if js is not None and abs(js_divergence(references_nk, probs_nk).mean() - js) < 1e-9:
                found.append(probs_nk)
                break
        else:
            return None
    return np.concatenate(found)
