"""Votes and the distributions that they make. A distribution is always derived, never stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Vote:
    """One listener's answer about one utterance.

    Attributes:
        utterance: id of the utterance.
        label: what was heard; it need not be one of a dataset's classes.
        rater: who answered, or None where the corpus gives counts only.
        weight: 1 for a whole vote; a share where an answer named several labels or only a distribution is known.
        source: "human" or the name of the annotating model.
    """

    utterance: str
    label: str
    rater: str | None = None
    weight: float = 1.0
    source: str = "human"


def count_votes(votes: Iterable[Vote], utterances: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Weighted vote counts.

    Votes for other utterances or for labels outside `classes` do not count.

    Returns:
        float64 [len(utterances), len(classes)]; a row without votes is zero.
    """
    row = {utterance: i for i, utterance in enumerate(utterances)}
    column = {label: k for k, label in enumerate(classes)}
    counts_nk = np.zeros((len(utterances), len(classes)))
    for vote in votes:
        if vote.utterance in row and vote.label in column:
            counts_nk[row[vote.utterance], column[vote.label]] += vote.weight
    return counts_nk


def whole_counts(votes: Iterable[Vote], utterances: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Counts int64 [N, K] of whole votes alone: a weight of 1, or a count. Shares of a vote are left aside."""
    votes = [vote for vote in votes if vote.weight == int(vote.weight) > 0]
    return count_votes(votes, utterances, classes).astype(np.int64)


def normalise(counts_nk: np.ndarray) -> np.ndarray:
    """Counts to distributions, row by row; a row without votes becomes NaN, so it cannot be used unseen."""
    totals_n1 = counts_nk.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return counts_nk / np.where(totals_n1 > 0, totals_n1, np.nan)
