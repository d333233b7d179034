"""What a run learns from: distributions of human votes, of synthetic ones, or of both pooled."""

from __future__ import annotations

import dataclasses
import functools
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


class Targets:
    """Training targets of a dataset's clips; the journal of synthetic votes is read once.

    Args:
        dataset: whose human votes and classes are used.
        labels: the source, and the journal and weight of the synthetic votes.
    """

    def __init__(self, dataset: Dataset, labels: LabelsConfig):
        self._dataset, self._labels = dataset, labels

    def distributions(self, ids: Sequence[str]) -> np.ndarray:
        """The share of votes for each class, float64 [len(ids), K], rows sum to 1.

        combined = (human counts + synthetic_weight x synthetic counts) / their sum, so many human votes outweigh few
        synthetic ones.

        Raises:
            UserError: no journal where one is needed, a weight that is no weight, or utterances without a vote to learn
                from, see `settle_missing`.
        """
        return normalise(self._counts(ids))

    def weights(self, ids: Sequence[str]) -> np.ndarray:
        """Each clip's weight in the loss: n / (n + prior_votes) for one with n votes, float64 [len(ids)].

        The votes' share p of a class misses the share q of endless listeners by q (1 - q) / n on average (its
        variance), so a clip's worth grows with n while listeners are few, and hardly any more once what else differs
        between clips, worth `prior_votes` votes, outweighs it. Of pooled votes, n is their weighted sum.

        Raises:
            UserError: as `distributions`; or prior_votes is negative.
        """
        prior = _non_negative("labels.prior_votes", self._labels.prior_votes)
        if not prior:
            return np.ones(len(ids))
        votes_n = self._counts(ids).sum(axis=1)
        return votes_n / (votes_n + prior)

    @functools.cached_property
    def synthetic_weight(self) -> float:
        """The weight of a synthetic vote relative to a human one; where it is learned, from the validation split.

        Raises:
            UserError: it is no weight, or the validation split has no utterance with two whole human votes and a
                synthetic one to learn from.
        """
        if not isinstance(self._labels.synthetic_weight, str):
            return _non_negative("labels.synthetic_weight", self._labels.synthetic_weight)
        ids, classes = self._dataset.splits["validation"], self._dataset.classes
        human_nk = self._dataset.votes.human.whole.counts(ids, classes)
        synthetic_nk = self._synthetic.counts(ids, classes)
        usable_n = (human_nk.sum(axis=1) >= 2) & (synthetic_nk.sum(axis=1) > 0)
        if not usable_n.any():
            raise UserError(
                "labels.synthetic_weight is learned from validation utterances with two human votes or more and a "
                f"synthetic one, and {self._dataset.path} has none; set a number."
            )
        return learn_weight(human_nk[usable_n], synthetic_nk[usable_n])

    def settle_missing(self) -> tuple[Dataset, dict[str, Any]]:
        """The dataset that a run learns from, where clips lack a synthetic vote: see `LabelsConfig.missing`.

        Returns:
            the dataset, in its training and validation split only what is learned from; and, where clips lack a vote,
            "treatment" ("human" or "drop"), "clips" (how many of each split), "of" (of how many) and "sentence".

        Raises:
            UserError: the journal is unusable, or has no vote for any clip of a split.
        """
        dataset, labels = self._dataset, self._labels
        if labels.source == "human":
            return dataset, {}
        voted = {vote.utterance for vote in self._synthetic if vote.weight > 0}
        parts = {part: dataset.splits[part] for part in ("train", "validation")}
        kept = {part: [id for id in ids if id in voted] for part, ids in parts.items()}
        for part, ids in parts.items():
            if ids and not kept[part] and (part == "train" or labels.missing == "drop"):
                self._refuse_unvoted(part, voted)
        missing = {part: len(ids) - len(kept[part]) for part, ids in parts.items()}
        if not any(missing.values()) or (labels.source == "synthetic" and labels.missing == "human"):
            return dataset, {}  # the second is refused by `distributions`
        some = " and ".join(f"{n} of {len(parts[part])} {part} clips" for part, n in missing.items() if n)
        then = "learned from their human votes alone" if labels.missing == "human" else "left out"
        facts = {
            "treatment": labels.missing,
            "clips": missing,
            "of": {part: len(ids) for part, ids in parts.items()},
            "sentence": f"without a synthetic vote in {labels.journal}: {some}; {then} "
            f"(labels.missing={labels.missing})",
        }
        if labels.missing == "human":
            return dataset, facts
        return dataclasses.replace(dataset, splits={**dataset.splits, **kept}), facts

    @functools.cached_property
    def _synthetic(self) -> Votes:
        labels = self._labels
        if not labels.journal:
            raise UserError(
                f"labels.source is {labels.source}, so labels.journal must name what `aer-jax annotate` wrote."
            )
        journal = Path(labels.journal)
        if not journal.is_file():
            raise UserError(f"there is no journal {journal}; `aer-jax annotate` writes one.")
        return read_votes(journal, self._dataset.classes)

    def _counts(self, ids: Sequence[str]) -> np.ndarray:
        dataset, labels = self._dataset, self._labels
        counts_nk = np.zeros((len(ids), len(dataset.classes)))
        if labels.source != "synthetic":
            human_nk = dataset.votes.counts(ids, dataset.classes)
            _refuse_empty(human_nk, ids, f"human vote in {dataset.path}", "prepare the dataset again")
            counts_nk += human_nk
        if labels.source != "human":
            synthetic_nk = self._synthetic.counts(ids, dataset.classes)
            if labels.source == "synthetic" or labels.missing == "drop":
                fix = (
                    "run `aer-jax annotate` again with this journal and --only-missing (and --answers constrained, "
                    "--engine exact or more --listeners where answers were unreadable), or leave them out with "
                    "labels.missing=drop"
                )
                _refuse_empty(synthetic_nk, ids, f"synthetic vote in {labels.journal}", fix)
            counts_nk += synthetic_nk * (self.synthetic_weight if labels.source == "combined" else 1.0)
        return counts_nk

    def _refuse_unvoted(self, part: str, voted: set[str]) -> None:
        others = sorted(voted - self._dataset.utterances.keys())
        about = f"; it is about other clips, the first is {others[0]}" if others else ""
        raise UserError(
            f"none of the {len(self._dataset.splits[part])} {part} clips has a synthetic vote in "
            f"{self._labels.journal}{about}; run `aer-jax annotate` on this dataset, or set labels.source=human."
        )


def _non_negative(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{name} is {value}; it must be 0 or more.")
    return value


def _refuse_empty(counts_nk: np.ndarray, ids: Sequence[str], what: str, fix: str) -> None:
    empty = np.flatnonzero(counts_nk.sum(axis=1) == 0)
    if len(empty):
        raise UserError(f"{len(empty)} of {len(ids)} utterances have no {what} (first {ids[empty[0]]}); {fix}.")
