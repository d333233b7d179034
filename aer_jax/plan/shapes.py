"""Batch shapes of a plan: those of the run's dataset, or one that the user describes."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from aer_jax.base.lengths import MAX_SAMPLES, SAMPLE_RATE, frame_count, token_count
from aer_jax.config import Config
from aer_jax.data import augment
from aer_jax.data.batching.buckets import ALONE, Buckets, Draws
from aer_jax.data.batching.shapes import needs_of
from aer_jax.data.dataset import open_dataset
from aer_jax.data.examples import real_examples
from aer_jax.data.prompt import PromptEncoder
from aer_jax.errors import UserError

CLASSES = 8  # where no dataset says how many; they change a matrix of a few kilobytes


class BatchShape(NamedTuple):
    """A compiled shape: samples of the window, tokens after the prefix, its batches per epoch (1 where unknown), and
    tokens of the prefix, the same for all shapes of a run.
    """

    samples: int
    tokens: int
    batches: int = 1
    prefix: int = 0


class Work(NamedTuple):
    """Work of a run per epoch.

    Attributes:
        shapes: ascending; the last one decides the memory.
        classes: number of emotions.
        utterances: of an epoch; None where no dataset is named.
    """

    shapes: list[BatchShape]
    classes: int
    utterances: int | None


def work_of(config: Config, seconds: float | None, prompt: int, prefix: int) -> Work:
    """The shapes of `data.dataset`, chosen as training chooses them, or one that holds a clip of `seconds`.

    DiME-Aug's mixes are left out: they have the lengths of the clips that they are made of.

    Args:
        config: a dataset's shapes need its tokenizer, so they are used where data.dataset and model.checkpoint are set.
        seconds: of the longest clip; where given, the dataset says only how many utterances there are.
        prompt: tokens of a clip's own next to the audio's.
        prefix: tokens that all prompts begin with.

    Raises:
        UserError: the clip is too long or too short, or the dataset or checkpoint cannot be read.
    """
    dataset = open_dataset(config.data.dataset) if config.data.dataset else None
    classes = len(dataset.classes) if dataset else CLASSES
    utterances = len(dataset.splits["train"]) if dataset else None
    if dataset and config.model.checkpoint and seconds is None:
        return Work(_of_dataset(config, dataset), classes, utterances)
    seconds = config.data.max_seconds if seconds is None else seconds
    if not 0.1 <= seconds <= MAX_SAMPLES / SAMPLE_RATE or prompt < 1 or prefix < 0:
        raise UserError(
            "a plan is for clips of 0.1 to 30 s, at least one token of their own and none or more that are common; "
            f"--seconds is {seconds}, --prompt {prompt}, --prefix {prefix}."
        )
    samples = round(seconds * SAMPLE_RATE)
    window, tokens = needs_of(np.array([samples]), np.array([prompt + token_count(frame_count(samples))]))[0]
    return Work([BatchShape(int(window), int(tokens), prefix=prefix)], classes, utterances)


def _of_dataset(config: Config, dataset) -> list[BatchShape]:
    ids = dataset.splits["train"]
    encoder = PromptEncoder.of(config, dataset.classes)
    targets_nk = np.full((len(ids), len(dataset.classes)), 1 / len(dataset.classes))
    buckets = Buckets(
        real_examples(ids, targets_nk),
        dataset,
        encoder,
        shapes=config.data.shapes,
        batch=config.train.batch,
        max_seconds=config.data.max_seconds,
        host=ALONE,
    )
    every = Draws(np.arange(len(ids)), np.zeros(len(ids)), np.ones(len(ids)))
    buckets.choose(every, augment.SLOWEST if config.data.augment > 0 else 1.0)
    batches = Counter(plan.shape for plan in buckets.plan(every))
    return [BatchShape(*shape, batches[i], len(buckets.prefix)) for i, shape in enumerate(buckets.shapes)]
