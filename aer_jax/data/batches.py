"""Training and evaluation streams: Grain over whole batches, so an iterator's state is one exact number."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from aer_jax.data.buckets import Buckets
from aer_jax.data.collate import Batch, collate
from aer_jax.data.examples import Example, real_examples
from aer_jax.data.sampling import BatchPlan, expected_draws, plan_epoch
from aer_jax.errors import UserError

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

__all__ = ["Batch", "EvaluationBatches", "TrainBatches", "collate", "evaluation_batches", "train_batches"]

_AUGMENT = 2  # beside the seed; sampling has its own number


class TrainBatches:
    """An endless, reproducible stream of training batches.

    Attributes:
        shapes: (S, T) of each bucket; no other shape ever comes.
        steps_per_epoch: batches an epoch, the same for every epoch.
        cut: how many examples are longer than `max_seconds`.
        iter_dataset: a Grain dataset whose iterators Orbax saves; a restored one goes on with the next batch.
    """

    def __init__(self, buckets: Buckets, seed: int, how: Literal["uniform", "balanced"]):
        class_n = np.array([int(np.argmax(example.target)) for example in buckets.examples])
        draws_n = expected_draws(class_n, how)
        self._buckets, self._seed = buckets, seed
        # Threads read batches of one epoch, or of two around its end.
        self._plan = functools.lru_cache(maxsize=2)(
            lambda epoch: plan_epoch(
                buckets.bucket_n, class_n, draws_n, batch=buckets.batch_rows, seed=seed, epoch=epoch
            )
        )
        self.shapes, self.cut = buckets.shapes, buckets.cut
        self.steps_per_epoch = len(self._plan(0))
        self.iter_dataset = buckets.iter_dataset(self.read, sys.maxsize)

    def read(self, step: int) -> Batch:
        """Batch number `step`, counted from 0 over all epochs: a function of seed and number alone."""
        epoch, position = divmod(step, self.steps_per_epoch)
        plan = self._plan(epoch)[position]
        rngs = [np.random.default_rng([self._seed, _AUGMENT, step, b]) for b in range(len(plan.rows))]
        return self._buckets.batch(plan, rngs)


class EvaluationBatches:
    """Each utterance once, as it is.

    Attributes:
        shapes: (S, T) of each bucket.
        cut: how many utterances are longer than `max_seconds`.
    """

    def __init__(self, buckets: Buckets):
        self._buckets = buckets
        self.shapes, self.cut = buckets.shapes, buckets.cut
        order = np.argsort(buckets.bucket_n, kind="stable")
        self._plans = [
            BatchPlan(bucket, rows[i : i + buckets.batch_rows])
            for bucket in range(len(buckets.shapes))
            for rows in [order[buckets.bucket_n[order] == bucket]]
            for i in range(0, len(rows), buckets.batch_rows)
        ]

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._buckets.iter_dataset(lambda i: self._buckets.batch(self._plans[i]), len(self)))


def train_batches(
    examples: Sequence[Example],
    dataset: Dataset,
    prompt: PromptEncoder,
    *,
    windows: int,
    batch: int,
    seed: int,
    augment: float,
    sampling: Literal["uniform", "balanced"],
    max_seconds: float,
) -> TrainBatches:
    """The training stream.

    Args:
        examples: real clips (`real_examples`) and DiME-Aug's mixes; `row` of a batch counts in this list.
        dataset: where audio, transcripts and durations come from.
        prompt: makes the tokens.
        windows: how many audio windows at most; see `choose_windows`.
        batch: rows of each batch.
        seed: at least 0; order, draws and augmentation depend on it, on the epoch and the position alone.
        augment: probability of pitch or tempo augmentation.
        sampling: "uniform" or "balanced", see `sampling.expected_draws`.
        max_seconds: longer audio is cut, before and after augmentation.

    Raises:
        UserError: there are no examples, or a setting is out of range.
    """
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more.")
    buckets = Buckets(
        examples, dataset, prompt, windows=windows, batch=batch, augmented=augment, max_seconds=max_seconds
    )
    return TrainBatches(buckets, seed, sampling)


def evaluation_batches(
    ids: Sequence[str],
    dataset: Dataset,
    prompt: PromptEncoder,
    targets_nk: np.ndarray,
    *,
    windows: int,
    batch: int,
    max_seconds: float,
) -> EvaluationBatches:
    """Every utterance exactly once, bucket by bucket, unmixed and unaugmented.

    Arguments are those of `train_batches`.

    Raises:
        UserError: there are no utterances, or a setting is out of range.
    """
    examples = real_examples(ids, targets_nk)
    buckets = Buckets(examples, dataset, prompt, windows=windows, batch=batch, augmented=0, max_seconds=max_seconds)
    return EvaluationBatches(buckets)
