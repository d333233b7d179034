"""Buckets: examples by their lengths, the batch shapes they need, and the batches that are read from them.

A batch is a dict of numpy arrays, B rows, S samples, P and T tokens, K classes:

    audio          float32 [B, S]   16 kHz, zeros after the clip
    audio_samples  int32   [B]      length of the clip
    prefix         int32   [P]      what all prompts begin with; it is read once for all rows
    tokens         int32   [B, T]   the rest of the prompt, padded on the right
    token_mask     bool    [B, T]
    target         float32 [B, K]
    weight         float32 [B]      what it counts in the loss; 0 for a row that only fills the batch up
    row            int32   [B]      which example or utterance it is; -1 for a padding row
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import grain
import numpy as np
from tqdm import tqdm

from aer_jax.base.chat import shared_prefix
from aer_jax.base.lengths import HOP, MAX_SAMPLES, SAMPLE_RATE, frame_count, token_count
from aer_jax.data import augment
from aer_jax.data.batching.shapes import best_shapes, bucketize, choose_shapes, cut_into_batches, needs_of
from aer_jax.data.examples import Example, mix_audio
from aer_jax.errors import UserError

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

# Where the number of shapes is left to the program: what may be padding, a tenth less half a per cent for epochs that
# augmentation draws longer; and the most that are compiled for it, in all and a batch of an epoch.
_PADDING = 0.095
_MOST_SHAPES, _SHAPES_PER_BATCH = 24, 0.2
# Stored durations may be rounded to a millisecond and resampling may add a sample.
_ROUNDING = 16


Batch = dict[str, np.ndarray]
NO_PREFIX = np.zeros(0, np.int32)


class Draws(NamedTuple):
    """Visits of examples: which, and how each is changed; arrays [n]. See `augment.draw`."""

    rows: np.ndarray
    semitones: np.ndarray
    tempo: np.ndarray

    def take(self, which: np.ndarray) -> Draws:
        return Draws(*(values[which] for values in self))


class BatchPlan(NamedTuple):
    """One batch: its shape's number and what is in it, 1 to `batch` visits."""

    shape: int
    draws: Draws


@dataclass(frozen=True)
class Host:
    """This process among those that share every batch; jax.process_index() and jax.process_count()."""

    index: int
    count: int


ALONE = Host(0, 1)


class Padding(NamedTuple):
    """Shares of padding in an epoch: of encoder frames, and of language-model positions."""

    frames: float
    positions: float


class Buckets:
    """Examples whose lengths are known before their audio is read.

    Attributes:
        samples_n: an upper bound, tight to a millisecond, of each example's samples before augmentation.
        prefix: what all prompts begin with; lengths of text are what comes after it.
        shapes: (S, T) of each batch shape, ascending; set by `choose`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        dataset: Dataset,
        prompt: PromptEncoder,
        *,
        shapes: int,
        batch: int,
        max_seconds: float,
        host: Host,
    ):
        if not examples:
            raise UserError(f"no utterances to make batches of in {dataset.path}; look at its report.md.")
        if shapes < 0 or batch < 1:
            raise UserError(
                f"there must be at least one row, and one shape or 0 of them to have them counted; shapes is {shapes}, "
                f"batch {batch}."
            )
        if not 0 < max_seconds <= MAX_SAMPLES / SAMPLE_RATE:
            raise UserError(f"data.max_seconds is {max_seconds}; the audio tower hears more than 0 and at most 30 s.")
        if batch % host.count:
            raise UserError(f"a batch of {batch} rows cannot be shared by {host.count} hosts; choose a multiple.")
        self.examples, self.dataset, self.prompt = examples, dataset, prompt
        self.count, self.batch_rows, self.host = shapes, batch, host
        self.most = round(max_seconds * SAMPLE_RATE)
        seconds_n = np.array([self._seconds(example) for example in examples])
        self.cut = int((seconds_n > max_seconds).sum())
        self.samples_n = np.minimum(np.ceil(seconds_n * SAMPLE_RATE).astype(np.int64) + _ROUNDING, self.most)
        progress = tqdm(examples, "prompts", unit="clip", delay=2, leave=False)
        self.prefix, lengths = prompt.prefix, []
        for example, samples in zip(progress, self.samples_n, strict=True):
            tokens = self._tokens(example, SAMPLE_RATE)
            prompt.refuse_long(example.spoken, len(tokens) + _more_tokens(samples))
            self.prefix = shared_prefix(self.prefix, [tokens])
            lengths.append(len(tokens))
        self._written_n = np.array(lengths) - len(self.prefix) - token_count(frame_count(SAMPLE_RATE))
        self.shapes: list[tuple[int, int]] = []

    def choose(self, draws: Draws, slowest: float) -> None:
        """Choose the shapes for an epoch like `draws`; clips slowed down to `slowest` fit too.

        Where their number is 0, they are the fewest with which both paddings stay below a tenth; where that takes more
        than are worth compiling, the fewest that come within one per cent of the least.
        """
        longest_n = np.minimum(augment.stretched(self.samples_n, slowest), self.samples_n.max())
        longest_2 = needs_of(longest_n, self._written_n + token_count(frame_count(longest_n))).max(axis=0)
        needs_n2 = needs_of(*self._lengths(draws))
        if self.count:
            self.shapes = _pairs(choose_shapes(needs_n2, longest_2, self.count, self.batch_rows))
            return
        tried = []
        most = min(_MOST_SHAPES, max(1, int(_SHAPES_PER_BATCH * len(needs_n2) / self.batch_rows)))
        for _, shapes_k2 in best_shapes(needs_n2, longest_2, most, self.batch_rows):
            self.shapes = _pairs(shapes_k2)
            tried.append((max(self.padding(self.plan(draws))), self.shapes))
            if tried[-1][0] <= _PADDING:
                return
        least = min(share for share, _ in tried)
        self.shapes = next(shapes for share, shapes in tried if share <= least + 0.01)

    def plan(self, draws: Draws) -> list[BatchPlan]:
        """The batches of an epoch, longest first; draws of one shape keep their order."""
        shape_n = bucketize(needs_of(*self._lengths(draws)), np.array(self.shapes))
        return [BatchPlan(shape, draws.take(which)) for shape, which in cut_into_batches(shape_n, self.batch_rows)]

    def padding(self, plans: Sequence[BatchPlan]) -> Padding:
        """Padding in the batches of `plans`."""
        lengths = [self._lengths(plan.draws) for plan in plans]
        frames = sum(frame_count(samples_n).sum() for samples_n, _ in lengths)
        positions = sum(tokens_n.sum() for _, tokens_n in lengths)
        window, tokens = self.batch_rows * np.array([self.shapes[plan.shape] for plan in plans]).sum(axis=0)
        return Padding(float(1 - frames / (window // HOP)), float(1 - positions / tokens))

    def batch(self, plan: BatchPlan) -> Batch:
        """Read, mix and augment the clips of one batch: the rows of it that are this host's."""
        n, b = len(plan.draws.rows), self.batch_rows
        mine_b = np.arange(b * self.host.index // self.host.count, b * (self.host.index + 1) // self.host.count)
        # Padding rows repeat the batch's first row, on whichever host they are.
        draws = plan.draws.take(np.where(mine_b < n, mine_b, 0))
        clips: dict[tuple, np.ndarray] = {}
        for key in zip(*draws, strict=True):
            if key not in clips:
                clips[key] = self._audio(*key)
        audio = [clips[key] for key in zip(*draws, strict=True)]
        examples = [self.examples[row] for row in draws.rows]
        window, text_length = self.shapes[plan.shape]
        return collate(
            audio,
            [self._tokens(example, len(audio_t)) for example, audio_t in zip(examples, audio, strict=True)],
            np.array([example.target for example in examples]),
            np.where(mine_b < n, draws.rows, -1),
            batch=len(mine_b),
            window=window,
            text_length=text_length,
            pad_id=self.prompt.pad_id,
            prefix=self.prefix,
            weights=[example.weight for example in examples],
        )

    def dummy_batches(self) -> list[Batch]:
        """A batch of each shape, as `batch` makes them, of silence alone."""
        rows, classes = self.batch_rows // self.host.count, len(self.examples[0].target)
        return [
            collate(
                [np.zeros(1, np.float32)],
                [self.prefix],
                np.zeros((1, classes)),
                [-1],
                batch=rows,
                window=window,
                text_length=text_length,
                pad_id=self.prompt.pad_id,
                prefix=self.prefix,
            )
            for window, text_length in self.shapes
        ]

    def iter_dataset(self, read: Callable[[int], Batch], batches: int) -> grain.IterDataset[Batch]:
        """`read(0)`, `read(1)`, ... ahead of their use; the iterator's whole state is the next number."""
        threads = min(8, os.cpu_count() or 1)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        return grain.MapDataset.range(batches).map(read).to_iter_dataset(options)

    def _lengths(self, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        samples_n = augment.stretched(self.samples_n[draws.rows], draws.tempo)
        return samples_n, self._written_n[draws.rows] + token_count(frame_count(samples_n))

    def _seconds(self, example: Example) -> float:
        """Duration of the clip, or of the shorter one of two that are mixed."""
        return min(self.dataset.utterances[id].seconds for id in example.heard)

    def _audio(self, row: int, semitones: float, tempo: float) -> np.ndarray:
        example = self.examples[row]
        audio_t = self.dataset.audio(example.first)[: self.most]
        if example.second is not None:
            audio_t = mix_audio(audio_t, self.dataset.audio(example.second)[: self.most], example.alpha)
        if len(audio_t) > self.samples_n[row]:
            raise UserError(
                f"{self.dataset.path}: the audio of {example.first} is longer than utterances.jsonl says; "
                "prepare the dataset again."
            )
        return augment.augment(audio_t, semitones, tempo)

    def _tokens(self, example: Example, samples: int) -> np.ndarray:
        spoken = self.dataset.utterances[example.spoken]
        return self.prompt.encode(spoken.transcript, spoken.speaker, samples)


def _more_tokens(samples: int) -> int:
    """Audio tokens of a clip, beyond those of one second."""
    return token_count(frame_count(int(samples))) - token_count(frame_count(SAMPLE_RATE))


def _pairs(shapes_k2: np.ndarray) -> list[tuple[int, int]]:
    return [(int(window), int(tokens)) for window, tokens in shapes_k2]


def collate(
    audio: Sequence[np.ndarray],
    tokens: Sequence[np.ndarray],
    targets_nk: np.ndarray,
    rows: Sequence[int] | np.ndarray,
    *,
    batch: int,
    window: int,
    text_length: int,
    pad_id: int,
    prefix: np.ndarray = NO_PREFIX,
    weights: Sequence[float] | None = None,
) -> Batch:
    """Clips and their prompts as one batch of fixed shape.

    Rows beyond the clips repeat the first one, with weight 0 and row -1: no mask is ever empty. A clip whose row is -1
    is such a padding row too.

    Args:
        audio: waveforms, float32 [samples <= window].
        tokens: prompts, int [P < tokens <= P + text_length].
        targets_nk: distributions [n, K]; zeros where there is none.
        rows: what the batch's `row` says, [n].
        batch: rows of the batch, at least n.
        window: samples of the audio window.
        text_length: tokens of a row.
        pad_id: the tokenizer's padding token.
        prefix: int [P], what each of `tokens` begins with.
        weights: what each clip counts, [n]; 1 by default.

    Raises:
        ValueError: there are too many clips, or a prompt begins with something else.
    """
    n = len(audio)
    if not 1 <= n <= batch:
        raise ValueError(f"{n} clips do not make a batch of {batch}")
    if any(not np.array_equal(prompt[: len(prefix)], prefix) for prompt in tokens):
        raise ValueError(f"a prompt does not begin with the {len(prefix)} tokens of the prefix")
    rests = [prompt[len(prefix) :] for prompt in tokens]
    source = [*range(n), *[0] * (batch - n)]
    audio_bs = np.zeros((batch, window), np.float32)
    tokens_bt = np.full((batch, text_length), pad_id, np.int32)
    mask_bt = np.zeros((batch, text_length), bool)
    for b, i in enumerate(source):
        audio_bs[b, : len(audio[i])] = audio[i]
        tokens_bt[b, : len(rests[i])] = rests[i]
        mask_bt[b, : len(rests[i])] = True
    row_b = np.array([*rows, *[-1] * (batch - n)], np.int32)
    weight_b = np.ones(batch, np.float32) if weights is None else np.asarray(weights, np.float32)[source]
    return {
        "audio": audio_bs,
        "audio_samples": np.array([len(audio[i]) for i in source], np.int32),
        "prefix": prefix,
        "tokens": tokens_bt,
        "token_mask": mask_bt,
        "target": np.asarray(targets_nk, np.float32)[source],
        "weight": np.where(row_b >= 0, weight_b, np.float32(0)),
        "row": row_b,
    }
