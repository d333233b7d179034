"""What a run learns from: the votes of human listeners, synthetic ones, or both pooled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aer_jax.config import LabelsConfig
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.labels.votes import count_votes, normalise
from aer_jax.proxies.journal import read_votes


def label_distributions(dataset: Dataset, ids: Sequence[str], labels: LabelsConfig) -> np.ndarray:
    """The share of votes for each class.

    combined = (human counts + synthetic_weight x synthetic counts) / their sum, so a clip heard by many people
    stays closer to what they heard.

    Args:
        dataset: whose human votes and classes are used.
        ids: utterances.
        labels: the source, and the journal and weight of the synthetic votes.

    Returns:
        float64 [len(ids), K], rows sum to 1.

    Raises:
        UserError: no journal where one is needed, a weight that is no weight, or utterances without a vote
            from a chosen source.
    """
    counts_nk = np.zeros((len(ids), len(dataset.classes)))
    if labels.source != "synthetic":
        human_nk = count_votes(dataset.votes, ids, dataset.classes)
        _refuse_empty(human_nk, ids, f"human vote in {dataset.path}", "prepare the dataset again")
        counts_nk += human_nk
    if labels.source != "human":
        synthetic_nk = _synthetic_counts(dataset, ids, labels)
        weight = labels.synthetic_weight if labels.source == "combined" else 1.0
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"labels.synthetic_weight is {weight}; it must be 0 or more.")
        counts_nk += weight * synthetic_nk
    return normalise(counts_nk)


def _synthetic_counts(dataset: Dataset, ids: Sequence[str], labels: LabelsConfig) -> np.ndarray:
    if not labels.journal:
        raise UserError(f"labels.source is {labels.source}, so labels.journal must name what `aer-jax annotate` wrote.")
    journal = Path(labels.journal)
    if not journal.is_file():
        raise UserError(f"there is no journal {journal}; `aer-jax annotate` writes one.")
    counts_nk = count_votes(read_votes(journal, dataset.classes), ids, dataset.classes)
    mend = "run `aer-jax annotate` again with this journal, with more --listeners if none gave a readable answer"
    _refuse_empty(counts_nk, ids, f"synthetic vote in {journal}", mend)
    return counts_nk


def _refuse_empty(counts_nk: np.ndarray, ids: Sequence[str], what: str, mend: str) -> None:
    empty = np.flatnonzero(counts_nk.sum(axis=1) == 0)
    if len(empty):
        raise UserError(f"{len(empty)} of {len(ids)} utterances have no {what} (first {ids[empty[0]]}); {mend}.")
