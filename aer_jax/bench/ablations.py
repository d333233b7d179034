"""Our training step with one of its means undone: what each brings is what is lost without it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from aer_jax.base.lengths import MAX_SAMPLES
from aer_jax.data.batching.collate import Batch

if TYPE_CHECKING:
    from aer_jax.data.batching.batches import TrainBatches


def thirty_seconds(batch: Batch, stream: TrainBatches) -> Batch:
    """Audio windows as the model was published with."""
    return _pad(batch, MAX_SAMPLES, batch["tokens"].shape[1])


def one_shape(batch: Batch, stream: TrainBatches) -> Batch:
    """Every batch in the shape of the longest clip and prompt."""
    return _pad(batch, *stream.shapes[-1])


def no_shared_prefix(batch: Batch, stream: TrainBatches) -> Batch:
    """What all prompts begin with stands in every row."""
    rows, prefix = len(batch["tokens"]), prefix_of(batch)
    if not prefix.size:
        return batch
    return batch | {
        "prefix": prefix[:0],
        "tokens": np.concatenate([np.tile(prefix, (rows, 1)), batch["tokens"]], axis=1),
        "token_mask": np.pad(batch["token_mask"], ((0, 0), (prefix.size, 0)), constant_values=True),
    }


def prefix_of(batch: Batch) -> np.ndarray:
    """The tokens that a batch's rows have in common and that it holds once; there may be none."""
    return batch.get("prefix", np.zeros(0, np.int32))


def _pad(batch: Batch, window: int, text_length: int) -> Batch:
    more_audio, more_text = window - batch["audio"].shape[1], text_length - batch["tokens"].shape[1]
    return batch | {
        "audio": np.pad(batch["audio"], ((0, 0), (0, more_audio))),
        "tokens": np.pad(batch["tokens"], ((0, 0), (0, more_text)), mode="edge"),
        "token_mask": np.pad(batch["token_mask"], ((0, 0), (0, more_text))),
    }


@dataclasses.dataclass(frozen=True)
class Variant:
    """Ours with something changed.

    Attributes:
        settings: of the model, on top of the job's.
        pad: what is done to each batch.
        output_layer: whether the vocabulary's logits are computed.
        every_query: whether the head computes attention of all positions, of which it reads the first.
        dropout: whether dropout is drawn; then its losses are others.
        donated: whether the step may write the new state where the old one was.
        kernels: whether long attention may be a kernel's instead of XLA's; bfloat16 alone has any.
    """

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    pad: Callable[[Batch, TrainBatches], Batch] | None = None
    output_layer: bool = False
    every_query: bool = False
    dropout: bool = False
    donated: bool = True
    kernels: bool = True


OURS = "ours"
VARIANTS = {
    OURS: Variant(),
    "audio windows of 30 s": Variant(pad=thirty_seconds),
    "one batch shape": Variant(pad=one_shape),
    "no shared prefix": Variant(pad=no_shared_prefix),
    "output layer computed": Variant(output_layer=True),
    "every query in the head": Variant(every_query=True),
    "remat=full": Variant({"remat": "full"}),
    "state not donated": Variant(donated=False),
    "with dropout": Variant(dropout=True),
    "attention by XLA": Variant(kernels=False),
}
