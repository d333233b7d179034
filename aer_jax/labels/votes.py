"""Votes and their distributions, which are always derived and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HUMAN = "human"


@dataclass(frozen=True)
class Vote:
    """One listener's answer about one utterance.

    Attributes:
        utterance: id of the utterance.
        label: the answer; it need not be one of a dataset's classes.
        rater: who answered, unique in its source; None where the corpus gives counts only.
        weight: 1 for a whole vote; a share where an answer named several labels or only a distribution is known.
        source: "human" or the name of the annotating model.
    """

    utterance: str
    label: str
    rater: str | None = None
    weight: float = 1.0
    source: str = HUMAN


class Votes(tuple[Vote, ...]):
    """Votes about any number of utterances, in the order in which they were read."""

    @property
    def human(self) -> Votes:
        """Those of people."""
        return Votes(vote for vote in self if vote.source == HUMAN)

    @property
    def synthetic(self) -> Votes:
        """Those of models."""
        return Votes(vote for vote in self if vote.source != HUMAN)

    @property
    def whole(self) -> Votes:
        """Those with a weight of 1, or a count; shares of a vote are left out."""
        return Votes(vote for vote in self if vote.weight == int(vote.weight) > 0)

    def counts(self, utterances: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Weighted vote counts.

        Votes for other utterances or for labels outside `classes` do not count.

        Returns:
            float64 [len(utterances), len(classes)]; a row without votes is zero.
        """
        row = {utterance: i for i, utterance in enumerate(utterances)}
        column = {label: k for k, label in enumerate(classes)}
        counts_nk = np.zeros((len(utterances), len(classes)))
        for vote in self:
            if vote.utterance in row and vote.label in column:
                counts_nk[row[vote.utterance], column[vote.label]] += vote.weight
        return counts_nk


def normalise(counts_nk: np.ndarray) -> np.ndarray:
    """Counts to distributions, row by row; a row without votes becomes NaN, so it cannot be used unseen."""
    totals_n1 = counts_nk.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return counts_nk / np.where(totals_n1 > 0, totals_n1, np.nan)
