"""Test set of an experiment: the test utterances of all its splits, each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation import baselines
from aer_jax.evaluation.predictions import human_distributions, shares
from aer_jax.experiments.settings import Trial
from aer_jax.inference.probe import read_probe
from aer_jax.labels.votes import normalise
from aer_jax.reports.evaluations import read_evaluation
from aer_jax.training.run import read_run
from aer_jax.training.targets import Targets


@dataclass(frozen=True)
class TestSet:
    """The pooled test parts and their human distributions.

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
        """Any of the datasets, for what all share."""
        return next(iter(self.datasets.values()))


def pool(datasets: Mapping[str, Dataset]) -> TestSet:
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
    return TestSet(datasets, ids, speakers_n, human_distributions(dataset, ids))


def predictions(test_set: TestSet, trials: Sequence[Trial]) -> np.ndarray:
    """Predictions [N, K] of one arm and seed, from one run per split.

    Raises:
        UserError: a prediction is missing.
    """
    lines: dict[str, dict[str, Any]] = {}
    for trial in trials:
        for line in read_evaluation(Path(trial.config.out), "test").predictions:
            if line["probs"].keys() != set(test_set.dataset.classes):
                raise UserError(
                    f"{trial.config.out} predicts other classes than the dataset's; remove it to run it again."
                )
            lines[line["id"]] = line
    if missing := [id for id in test_set.ids if id not in lines]:
        raise UserError(
            f"{trials[0].config.out} and the like have no prediction for {missing[0]}; evaluate them again."
        )
    return normalise(shares([lines[id] for id in test_set.ids], "probs", test_set.dataset.classes))


def own_labels(test_set: TestSet, trials: Sequence[Trial]) -> np.ndarray:
    """The distributions of the kind that an arm was trained on, as the paper scores it: [N, K]."""
    parts = [
        Targets(dataset, trial.config.labels).distributions(dataset.splits["test"])
        for trial in trials
        if (dataset := test_set.datasets[trial.split])
    ]
    return np.concatenate(parts)


def baseline_predictions(test_set: TestSet, trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """Predictions [N, K] of the baselines that predict; what is learned is learned for each split.

    Args:
        test_set: the data.
        trials: the finished runs of one arm and seed, whose bases the linear probe reads.
    """
    means = []
    for dataset in test_set.datasets.values():
        mean_k = human_distributions(dataset, sorted(dataset.splits["train"])).mean(axis=0)
        means.append(np.broadcast_to(mean_k, (len(dataset.splits["test"]), len(mean_k))))
    return baselines.predictions(test_set.references_nk, np.concatenate(means), _linear_probe(test_set, trials))


def _linear_probe(test_set: TestSet, trials: Sequence[Trial]) -> np.ndarray | None:
    """What `evaluate` kept of the probe of each run's base and dataset; None where it is gone."""
    rows = []
    for trial in trials:
        dataset = test_set.datasets[trial.split]
        probs = read_probe(read_run(trial.config.out), dataset, "test")
        ids = dataset.splits["test"]
        if not probs.keys() >= set(ids):
            return None
        rows += [probs[id] for id in ids]
    return np.array(rows)
