"""Examples sorted by length into buckets, so that a short clip does not pay for the longest.

A bucket has one audio window and one text length: one shape, one compiled step.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grain
import numpy as np
from tqdm import tqdm

from aer_jax.data import augment
from aer_jax.data.collate import Batch, collate
from aer_jax.data.examples import Example, mix_audio
from aer_jax.data.sampling import BatchPlan
from aer_jax.data.windows import choose_windows, window_for
from aer_jax.errors import UserError
from aer_jax.lengths import MAX_SAMPLES, SAMPLE_RATE

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

# Stored durations may be rounded to a millisecond and resampling may add a sample.
_ROUNDING = 16


class Buckets:
    """Examples sorted by the longest audio that each can have, and the batches that can be read from them."""

    def __init__(
        self,
        examples: Sequence[Example],
        dataset: Dataset,
        prompt: PromptEncoder,
        *,
        windows: int,
        batch: int,
        augmented: float,
        max_seconds: float,
    ):
        if not examples:
            raise UserError(f"no utterances to make batches of in {dataset.path}; look at its report.md.")
        if windows < 1 or batch < 1:
            raise UserError(f"there must be at least one window and one row; windows is {windows}, batch {batch}.")
        if not 0 <= augmented <= 1:
            raise UserError(f"data.augment is {augmented}; it is a probability, 0 to 1.")
        if not 0 < max_seconds <= MAX_SAMPLES / SAMPLE_RATE:
            raise UserError(f"data.max_seconds is {max_seconds}; the audio tower hears more than 0 and at most 30 s.")
        self.examples, self.dataset, self.prompt = examples, dataset, prompt
        self.batch_rows, self.augmented = batch, augmented
        self.most = round(max_seconds * SAMPLE_RATE)
        self.cut = sum(self._seconds(example) > max_seconds for example in examples)
        lengths = [self._samples(example) for example in examples]
        longest_n = np.array([min(augment.longest(samples, augmented), self.most) for samples in lengths])
        windows_w = np.array(choose_windows(longest_n, windows, batch))
        self.bucket_n = np.searchsorted(windows_w, window_for(longest_n))
        text_w = np.zeros(len(windows_w), np.int64)
        # A prompt grows with its audio, so the longest audio gives the longest prompt.
        rows = zip(examples, longest_n, self.bucket_n, strict=True)
        for example, samples, bucket in tqdm(rows, "prompts", len(examples), unit="clip", delay=2, leave=False):
            text_w[bucket] = max(text_w[bucket], len(self._tokens(example, int(samples))))
        self.shapes = [(int(s), int(math.ceil(t / 8) * 8)) for s, t in zip(windows_w, text_w, strict=True)]

    def batch(self, plan: BatchPlan, rngs: Sequence[np.random.Generator] | None = None) -> Batch:
        """Read, mix and, with one generator a row, augment the clips of one batch."""
        examples = [self.examples[row] for row in plan.rows]
        audio = [self._audio(example) for example in examples]
        if rngs is not None:
            audio = [
                augment.augment(audio_t, self.augmented, rng)[: self.most]
                for audio_t, rng in zip(audio, rngs, strict=True)
            ]
        window, text_length = self.shapes[plan.bucket]
        tokens = [self._tokens(example, len(a)) for example, a in zip(examples, audio, strict=True)]
        return collate(
            audio,
            tokens,
            np.array([example.target for example in examples]),
            plan.rows,
            batch=self.batch_rows,
            window=window,
            text_length=text_length,
            pad_id=self.prompt.pad_id,
        )

    def iter_dataset(self, read: Callable[[int], Batch], batches: int) -> grain.IterDataset[Batch]:
        """`read(0)`, `read(1)`, ... ahead of their use; the iterator's whole state is the next number."""
        threads = min(8, os.cpu_count() or 1)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        return grain.MapDataset.range(batches).map(read).to_iter_dataset(options)

    def _samples(self, example: Example) -> int:
        """An upper bound of the example's samples before augmentation."""
        return min(math.ceil(self._seconds(example) * SAMPLE_RATE) + _ROUNDING, self.most)

    def _seconds(self, example: Example) -> float:
        """Duration of the clip, or of the shorter one of two that are mixed."""
        ids = [example.first] if example.second is None else [example.first, example.second]
        return min(self.dataset.utterances[id].seconds for id in ids)

    def _audio(self, example: Example) -> np.ndarray:
        audio_t = self.dataset.audio(example.first)[: self.most]
        if example.second is not None:
            audio_t = mix_audio(audio_t, self.dataset.audio(example.second)[: self.most], example.alpha)
        if len(audio_t) > self._samples(example):
            raise UserError(
                f"{self.dataset.path}: the audio of {example.first} is longer than utterances.jsonl says; "
                "prepare the dataset again."
            )
        return audio_t

    def _tokens(self, example: Example, samples: int) -> np.ndarray:
        spoken = self.dataset.utterances[example.spoken]
        return self.prompt.encode(spoken.transcript, spoken.speaker, samples)
