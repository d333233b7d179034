"""Training and evaluation streams: Grain over whole batches, so an iterator's state is one exact number."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.data import augment
from aer_jax.data.batching.buckets import ALONE, Batch, BatchPlan, Buckets, Draws, Host, collate
from aer_jax.data.examples import Example, real_examples
from aer_jax.errors import UserError
from aer_jax.files.tables import counted

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

__all__ = ["Batch", "EvaluationBatches", "Host", "TrainBatches", "collate", "evaluation_batches", "train_batches"]

# Beside the seed, so that none of them changes what another draws.
_VISITS, _AUGMENT, _ORDER = 1, 2, 3


class TrainBatches:
    """An endless, reproducible stream of training batches; every host draws the same ones and reads its own rows.

    Attributes:
        shapes: (S, T) of each batch shape; no other ever comes.
        steps_per_epoch: batches an epoch, the same for every epoch; all are full but one of the shortest shape.
        cut: how many examples are longer than `max_seconds`.
        padding: shares of the first epoch; others differ by what augmentation draws.
        dummy_batches: makes a batch of each shape without clips.
        iter_dataset: a Grain dataset whose iterators Orbax saves; a restored one goes on with the next batch.
    """

    def __init__(self, buckets: Buckets, seed: int, probability: float, how: Literal["uniform", "balanced"]):
        self._buckets, self._seed, self._probability = buckets, seed, probability
        self._class_n = np.array([int(np.argmax(example.target)) for example in buckets.examples])
        self._draws_n = expected_draws(self._class_n, how)
        buckets.choose(self._draw(0), augment.SLOWEST if probability > 0 else 1.0)
        # Threads read batches of one epoch, or of two around its end.
        self._plan = functools.lru_cache(maxsize=2)(self._plan_epoch)
        self.shapes, self.cut = buckets.shapes, buckets.cut
        self.dummy_batches = buckets.dummy_batches
        self.steps_per_epoch = len(self._plan(0))
        self.padding = buckets.padding(self._plan(0))
        self.iter_dataset = buckets.iter_dataset(self.read, sys.maxsize)

    def read(self, step: int) -> Batch:
        """Batch number `step`, counted from 0 over all epochs: a function of seed and number alone."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._buckets.batch(self._plan(epoch)[position])

    def contents(self, step: int) -> list[dict[str, Any]]:
        """Contents of batch number `step` of all hosts, without reading it: one dict per clip.

        Each has `utterance` and how it is changed, `semitones` and `tempo`; a mix also `mixed_with` and its share.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        clips = []
        for row, semitones, tempo in zip(*self._plan(epoch)[position].draws, strict=True):
            example = self._buckets.examples[row]
            mix = {"mixed_with": example.second, "share": example.alpha} if example.second else {}
            clips.append({"utterance": example.first, **mix, "semitones": float(semitones), "tempo": float(tempo)})
        return clips

    def facts(self) -> dict[str, Any]:
        """Shapes, steps and padding, for JSON."""
        shapes = [{"seconds": samples / SAMPLE_RATE, "tokens": tokens} for samples, tokens in self.shapes]
        padding = {name: round(share, 4) for name, share in self.padding._asdict().items()}
        return {
            "shapes": shapes,
            "prefix_tokens": len(self._buckets.prefix),
            "steps_per_epoch": self.steps_per_epoch,
            "padding": padding,
            "cut": self.cut,
        }

    def sentence(self) -> str:
        """`facts` as a sentence."""
        longest = f"the longest {self.shapes[-1][0] / SAMPLE_RATE:.1f} s and {self.shapes[-1][1]} tokens"
        longest += f" after {len(self._buckets.prefix)} common ones"
        cut = f"; longer than data.max_seconds and cut: {counted(self.cut, 'clip')}" if self.cut else ""
        steps, shapes = counted(self.steps_per_epoch, "step"), counted(len(self.shapes), "batch shape")
        return (
            f"{steps} per epoch in {shapes}, {longest}; padding is {self.padding.frames:.1%} of audio frames and "
            f"{self.padding.positions:.1%} of token positions{cut}"
        )

    def _draw(self, epoch: int) -> Draws:
        samples_n = self._buckets.samples_n
        rows = draw_epoch(self._class_n, self._draws_n, self._rng(_VISITS, epoch))
        changes = augment.draw(samples_n[rows], samples_n.max(), self._probability, self._rng(_AUGMENT, epoch))
        return Draws(rows, *changes)

    def _plan_epoch(self, epoch: int) -> list[BatchPlan]:
        plans = self._buckets.plan(self._draw(epoch))
        return [plans[i] for i in self._rng(_ORDER, epoch).permutation(len(plans))]

    def _rng(self, purpose: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, purpose, epoch])


class EvaluationBatches:
    """Evaluation batches: each utterance once, unaugmented.

    Attributes:
        shapes: (S, T) of each batch shape.
        cut: how many utterances are longer than `max_seconds`.
        dummy_batches: makes a batch of each shape without clips.
    """

    def __init__(self, buckets: Buckets):
        self._buckets = buckets
        n = len(buckets.examples)
        every = Draws(np.arange(n), np.zeros(n), np.ones(n))
        buckets.choose(every, slowest=1.0)
        self.shapes, self.cut, self.dummy_batches = buckets.shapes, buckets.cut, buckets.dummy_batches
        self._plans = buckets.plan(every)

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._buckets.iter_dataset(lambda i: self._buckets.batch(self._plans[i]), len(self)))


def train_batches(
    examples: Sequence[Example],
    dataset: Dataset,
    prompt: PromptEncoder,
    *,
    shapes: int,
    batch: int,
    seed: int,
    augment: float,
    sampling: Literal["uniform", "balanced"],
    max_seconds: float,
    host: Host = ALONE,
) -> TrainBatches:
    """The training stream.

    Args:
        examples: real clips (`real_examples`) and DiME-Aug's mixes; `row` of a batch counts in this list.
        dataset: where audio, transcripts and durations come from.
        prompt: makes the tokens.
        shapes: how many batch shapes at most; see `choose_shapes`.
        batch: rows of each batch, over all hosts.
        seed: at least 0; order, draws and augmentation depend on it, on the epoch and the position alone.
        augment: probability of pitch or tempo augmentation.
        sampling: "uniform" or "balanced", see `expected_draws`.
        max_seconds: longer audio is cut.
        host: which rows of every batch are read here: [i B / n, (i + 1) B / n) for host i of n.

    Raises:
        UserError: there are no examples, or a setting is out of range.
    """
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more.")
    if not 0 <= augment <= 1:
        raise UserError(f"data.augment is {augment}; it is a probability, 0 to 1.")
    buckets = Buckets(examples, dataset, prompt, shapes=shapes, batch=batch, max_seconds=max_seconds, host=host)
    return TrainBatches(buckets, seed, augment, sampling)


def evaluation_batches(
    ids: Sequence[str],
    dataset: Dataset,
    prompt: PromptEncoder,
    targets_nk: np.ndarray | None = None,
    *,
    shapes: int,
    batch: int,
    max_seconds: float,
    host: Host = ALONE,
) -> EvaluationBatches:
    """Every utterance exactly once, longest first, unmixed and unaugmented.

    Arguments are those of `train_batches`; targets are zeros where none are given.

    Raises:
        UserError: there are no utterances, or a setting is out of range.
    """
    examples = real_examples(ids, np.zeros((len(ids), len(dataset.classes))) if targets_nk is None else targets_nk)
    buckets = Buckets(examples, dataset, prompt, shapes=shapes, batch=batch, max_seconds=max_seconds, host=host)
    return EvaluationBatches(buckets)


def expected_draws(class_n: np.ndarray, sampling: Literal["uniform", "balanced"]) -> np.ndarray:
    """Expected visits of each example per epoch.

    Uniform: once. Balanced: n / (classes that occur x examples of its class), so that classes are equally
    frequent and an epoch is as long as a uniform one.

    Args:
        class_n: most likely class of each example.

    Returns:
        float64 [n], sums to n.
    """
    if sampling == "uniform":
        return np.ones(len(class_n))
    _, inverse_n, size_c = np.unique(class_n, return_inverse=True, return_counts=True)
    return len(class_n) / (len(size_c) * size_c[inverse_n])


def draw_epoch(class_n: np.ndarray, draws_n: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The examples that one epoch visits, n of them, in random order.

    Systematic sampling (Madow & Madow, 1944): examples, shuffled within their class, lie side by side on a line, each
    as long as its expected draws, and are taken at unit steps from a random start. An example is drawn its expected
    number of times, rounded up or down, and so is each class; with `draws_n` all 1, every example exactly once.

    Args:
        class_n: class of each example.
        draws_n: see `expected_draws`; sums to n.
        rng: shuffles and starts.

    Returns:
        int64 [n].
    """
    n = len(class_n)
    line_n = rng.permutation(n)
    line_n = line_n[np.argsort(class_n[line_n], kind="stable")]
    ends_n = np.cumsum(draws_n[line_n])
    # A dyadic start: start + m is exact, so rounding can never take an example twice or not at all.
    points_n = rng.integers(2**20) / 2**20 + np.arange(n)
    return rng.permutation(line_n[np.searchsorted(ends_n * (n / ends_n[-1]), points_n, side="right")])
