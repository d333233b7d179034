"""What a run learns from: the votes of human listeners, synthetic ones, or both pooled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.config import LabelsConfig
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.labels.journal import read_votes
from aer_jax.labels.pooling import learn_weight
from aer_jax.labels.votes import Votes, normalise


def settle_missing(dataset: Dataset, labels: LabelsConfig) -> tuple[Dataset, dict[str, Any]]:
    """The dataset that a run learns from, where clips lack a synthetic vote: see `LabelsConfig.missing`.

    Returns:
        the dataset, in its training and validation split only what is learned from; and, where clips lack a vote,
        "treatment" ("human" or "drop"), "clips" (how many of each split), "of" (of how many) and "sentence".

    Raises:
        UserError: the journal is unusable, or has no vote for any clip of a split.
    """
    if labels.source == "human":
        return dataset, {}
    voted = {vote.utterance for vote in _synthetic_votes(dataset, labels) if vote.weight > 0}
    parts = {part: dataset.splits[part] for part in ("train", "validation")}
    kept = {part: [id for id in ids if id in voted] for part, ids in parts.items()}
    for part, ids in parts.items():
        if ids and not kept[part] and (part == "train" or labels.missing == "drop"):
            others = sorted(voted - dataset.utterances.keys())
            about = f"; it is about other clips, the first is {others[0]}" if others else ""
            raise UserError(
                f"none of the {len(ids)} {part} clips has a synthetic vote in {labels.journal}{about}; run "
                "`aer-jax annotate` on this dataset, or set labels.source=human."
            )
    missing = {part: len(ids) - len(kept[part]) for part, ids in parts.items()}
    if not any(missing.values()) or (labels.source == "synthetic" and labels.missing == "human"):
        return dataset, {}  # what the second lacks is refused by `label_distributions`
    some = " and ".join(f"{n} of {len(parts[part])} {part} clips" for part, n in missing.items() if n)
    then = "learned from their human votes alone" if labels.missing == "human" else "left out"
    facts = {
        "treatment": labels.missing,
        "clips": missing,
        "of": {part: len(ids) for part, ids in parts.items()},
        "sentence": f"without a synthetic vote in {labels.journal}: {some}; {then} (labels.missing={labels.missing})",
    }
    if labels.missing == "human":
        return dataset, facts
    return dataclasses.replace(dataset, splits={**dataset.splits, **kept}), facts


def clip_weights(dataset: Dataset, ids: Sequence[str], labels: LabelsConfig) -> np.ndarray:
    """What each clip counts in the loss: n / (n + prior_votes) for one with n votes, float64 [len(ids)].

    The votes' share p of a class misses the share q of endless listeners by q (1 - q) / n on average (its variance), so
    a clip's worth grows with n while listeners are few, and hardly any more once what else differs between clips, worth
    `prior_votes` votes, outweighs it. Of pooled votes, n is what they count together.

    Raises:
        UserError: as `label_distributions`; or prior_votes is negative.
    """
    prior = labels.prior_votes
    if not (math.isfinite(prior) and prior >= 0):
        raise UserError(f"labels.prior_votes is {prior}; it must be 0 or more.")
    if not prior:
        return np.ones(len(ids))
    votes_n = _counts(dataset, ids, labels).sum(axis=1)
    return votes_n / (votes_n + prior)


def label_distributions(dataset: Dataset, ids: Sequence[str], labels: LabelsConfig) -> np.ndarray:
    """The share of votes for each class.

    combined = (human counts + synthetic_weight x synthetic counts) / their sum, so a clip heard by many people
    stays closer to what they heard.

    Args:
        dataset: whose human votes and classes are used.
        ids: utterances.
        labels: the source, and the journal and weight of the synthetic votes, see `synthetic_weight`.

    Returns:
        float64 [len(ids), K], rows sum to 1.

    Raises:
        UserError: no journal where one is needed, a weight that is no weight, or utterances without a vote to learn
            from, see `settle_missing`.
    """
    return normalise(_counts(dataset, ids, labels))


def _counts(dataset: Dataset, ids: Sequence[str], labels: LabelsConfig) -> np.ndarray:
    counts_nk = np.zeros((len(ids), len(dataset.classes)))
    if labels.source != "synthetic":
        human_nk = dataset.votes.counts(ids, dataset.classes)
        _refuse_empty(human_nk, ids, f"human vote in {dataset.path}", "prepare the dataset again")
        counts_nk += human_nk
    if labels.source != "human":
        synthetic_nk = _synthetic_votes(dataset, labels).counts(ids, dataset.classes)
        if labels.source == "synthetic" or labels.missing == "drop":
            fix = (
                "run `aer-jax annotate` again with this journal and --only-missing (and --answers constrained, "
                "--engine exact or more --listeners where answers were unreadable), or leave them out with "
                "labels.missing=drop"
            )
            _refuse_empty(synthetic_nk, ids, f"synthetic vote in {labels.journal}", fix)
        counts_nk += synthetic_nk * (synthetic_weight(dataset, labels) if labels.source == "combined" else 1.0)
    return counts_nk


def synthetic_weight(dataset: Dataset, labels: LabelsConfig) -> float:
    """What a synthetic vote counts relative to a human one; where it is to be learned, from the validation split.

    Raises:
        UserError: it is no weight, or the validation split has no utterance with two whole human votes and a synthetic
            one to learn from.
    """
    weight = labels.synthetic_weight
    if not isinstance(weight, str):
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"labels.synthetic_weight is {weight}; it must be 0 or more.")
        return weight
    ids = dataset.splits["validation"]
    human_nk = dataset.votes.human.whole.counts(ids, dataset.classes)
    synthetic_nk = _synthetic_votes(dataset, labels).counts(ids, dataset.classes)
    usable_n = (human_nk.sum(axis=1) >= 2) & (synthetic_nk.sum(axis=1) > 0)
    if not usable_n.any():
        raise UserError(
            "labels.synthetic_weight is learned from validation utterances with two human votes or more and a "
            f"synthetic one, and {dataset.path} has none; set a number."
        )
    return learn_weight(human_nk[usable_n], synthetic_nk[usable_n])


def _synthetic_votes(dataset: Dataset, labels: LabelsConfig) -> Votes:
    if not labels.journal:
        raise UserError(f"labels.source is {labels.source}, so labels.journal must name what `aer-jax annotate` wrote.")
    journal = Path(labels.journal)
    if not journal.is_file():
        raise UserError(f"there is no journal {journal}; `aer-jax annotate` writes one.")
    return read_votes(journal, dataset.classes)


def _refuse_empty(counts_nk: np.ndarray, ids: Sequence[str], what: str, fix: str) -> None:
    empty = np.flatnonzero(counts_nk.sum(axis=1) == 0)
    if len(empty):
        raise UserError(f"{len(empty)} of {len(ids)} utterances have no {what} (first {ids[empty[0]]}); {fix}.")
