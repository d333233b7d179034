"""What a model says about each utterance of a split, checked before it is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aer_jax.errors import UserError
from aer_jax.labels.votes import normalise

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset


@dataclass(frozen=True)
class Prediction:
    """What a model says about one utterance: `probs` in the order of the dataset's classes."""

    id: str
    speaker: str
    probs: tuple[float, ...]


def checked(predictions: Sequence[Prediction], dataset: Dataset, split: str) -> list[Prediction]:
    """The predictions sorted by id, if they are distributions and cover exactly the split.

    Raises:
        UserError: an id is missing, foreign or doubled, a speaker is not the dataset's, or the numbers are
            negative, not finite, too many or too few, or do not sum to one within 1e-3.
    """
    if split not in dataset.splits:
        raise UserError(f'{dataset.path} has no split "{split}"; it has {", ".join(dataset.splits)}.')
    wanted = set(dataset.splits[split])
    if not wanted:
        raise UserError(f"the {split} split of {dataset.path} is empty; there is nothing to evaluate.")
    seen: set[str] = set()
    for prediction in predictions:
        what = f'the prediction for "{prediction.id}"'
        if prediction.id not in wanted:
            raise UserError(f"{what} is not of the {split} split of {dataset.path}; predict that split.")
        if prediction.id in seen:
            raise UserError(f"{what} stands there twice; keep one.")
        seen.add(prediction.id)
        speaker = dataset.utterances[prediction.id].speaker
        if prediction.speaker != speaker:
            raise UserError(
                f'{what} names speaker "{prediction.speaker}", the dataset "{speaker}"; '
                "it was made with another dataset, predict again."
            )
        probs = np.asarray(prediction.probs, np.float64)
        if probs.shape != (len(dataset.classes),):
            raise UserError(f"{what} has {probs.size} numbers; {dataset.path} has {len(dataset.classes)} classes.")
        if not np.isfinite(probs).all() or (probs < 0).any() or abs(probs.sum() - 1) > 1e-3:
            raise UserError(f"{what} is not a distribution: {probs.tolist()}; its numbers must be >= 0 and sum to 1.")
    if missing := sorted(wanted - seen):
        raise UserError(
            f"{len(missing)} of the {len(wanted)} utterances of the {split} split of {dataset.path} have no "
            f'prediction, the first is "{missing[0]}"; predict the whole split.'
        )
    return sorted(predictions, key=lambda prediction: prediction.id)


def human_distributions(dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
    """The human votes of `ids` as distributions [N, K], not smoothed.

    Raises:
        UserError: an utterance has no human vote for any of the dataset's classes.
    """
    references_nk = normalise(dataset.votes.human.counts(ids, dataset.classes))
    without = [id for id, row in zip(ids, references_nk, strict=True) if np.isnan(row).any()]
    if without:
        raise UserError(
            f"{len(without)} utterances of {dataset.path} have no human vote for its classes, the first is "
            f'"{without[0]}"; prepare the dataset again, `aer-jax prepare` drops them.'
        )
    return references_nk
