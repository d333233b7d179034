"""Ablations: the training step with one optimization disabled at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from aer_jax.base.lengths import MAX_SAMPLES
from aer_jax.bench.driver import AER_JAX
from aer_jax.data.batching.buckets import Batch

if TYPE_CHECKING:
    from aer_jax.data.batching.batches import TrainBatches


def thirty_seconds(batch: Batch, stream: TrainBatches) -> Batch:
    """Audio windows as the model was published with."""
    return _pad(batch, MAX_SAMPLES, batch["tokens"].shape[1])


def one_shape(batch: Batch, stream: TrainBatches) -> Batch:
    """Every batch in the shape of the longest clip and prompt."""
    return _pad(batch, *stream.shapes[-1])


def no_shared_prefix(batch: Batch, stream: TrainBatches) -> Batch:
    """The prefix that all prompts share, in every row."""
    rows, prefix = len(batch["tokens"]), batch["prefix"]
    return batch | {
        "prefix": prefix[:0],
        "tokens": np.concatenate([np.tile(prefix, (rows, 1)), batch["tokens"]], axis=1),
        "token_mask": np.pad(batch["token_mask"], ((0, 0), (prefix.size, 0)), constant_values=True),
    }


def _pad(batch: Batch, window: int, text_length: int) -> Batch:
    more_audio, more_text = window - batch["audio"].shape[1], text_length - batch["tokens"].shape[1]
    return batch | {
        "audio": np.pad(batch["audio"], ((0, 0), (0, more_audio))),
        "tokens": np.pad(batch["tokens"], ((0, 0), (0, more_text)), mode="edge"),
        "token_mask": np.pad(batch["token_mask"], ((0, 0), (0, more_text))),
    }


@dataclasses.dataclass(frozen=True)
class Ablation:
    """aer_jax with something changed.

    Attributes:
        settings: of the model, on top of the job's.
        pad: what is done to each batch.
        dropout: rate of the adapters' dropout, with which the head's is drawn too; the losses are then others.
        kernels: whether long attention may be a kernel's instead of XLA's; bfloat16 alone has any.
    """

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    pad: Callable[[Batch, TrainBatches], Batch] | None = None
    dropout: float = 0.0
    kernels: bool = True


ABLATIONS = {
    AER_JAX: Ablation(),
    "audio windows of 30 s": Ablation(pad=thirty_seconds),
    "one batch shape": Ablation(pad=one_shape),
    "no shared prefix": Ablation(pad=no_shared_prefix),
    "remat=full": Ablation({"remat": "full"}),
    "with dropout": Ablation(dropout=0.2),
    "attention by XLA": Ablation(kernels=False),
}


def ablations_of(dtype: str) -> list[str]:
    """Those that change the step in this type."""
    return [name for name, ablation in ABLATIONS.items() if ablation.kernels or dtype == "bfloat16"]
