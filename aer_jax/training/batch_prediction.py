"""A compiled function over a stream of evaluation batches: predictions, and features of a frozen model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training.distributed import fetch
from aer_jax.training.step import model_batch, to_device

DeviceBatch = dict[str, jax.Array]


def predict_blocks(
    batches: Iterable[Mapping[str, np.ndarray]], predict: Callable[[DeviceBatch], jax.Array], mesh: Mesh
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and outputs per evaluation batch, fetched one batch behind the device.

    Args:
        batches: with `row` counting from 0, -1 for padding rows.
        predict: device batch -> outputs [batch, ...].
    """
    pending: tuple[jax.Array, jax.Array] | None = None

    def fetched(row_b: jax.Array, output_b: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        rows, outputs = fetch((row_b, output_b))  # of all processes that share the batch
        return rows[rows >= 0], outputs[rows >= 0]

    for batch in batches:
        on_device = to_device(batch, mesh)
        output_b = predict(on_device)
        if pending is not None:
            yield fetched(*pending)
        pending = on_device["row"], output_b
    if pending is not None:
        yield fetched(*pending)


def predict_rows(
    batches: Iterable[Mapping[str, np.ndarray]],
    rows: int,
    classes: int,
    predict: Callable[[DeviceBatch], jax.Array],
    mesh: Mesh,
) -> np.ndarray:
    """Logits per row, float32 [rows, classes]; NaN for a row that no batch held. Arguments as in `predict_blocks`."""
    logits_nk = np.full((rows, classes), np.nan, np.float32)
    for row_b, logits_bk in predict_blocks(batches, predict, mesh):
        logits_nk[row_b] = logits_bk
    return logits_nk


def compile_features(
    model: EmotionModel, features: Callable[[EmotionModel, DeviceBatch], jax.Array]
) -> Callable[[DeviceBatch], jax.Array]:
    """The compiled (batch [rows, ...]) -> features(model, batch) [rows, E], by the model as it is now."""
    graphdef, state = nnx.split(model)
    compiled = jax.jit(lambda state, batch: features(nnx.merge(graphdef, state), batch))
    return lambda batch: compiled(state, batch)


def readout_inputs(model: EmotionModel, batch: DeviceBatch) -> jax.Array:
    """The readout's inputs before standardisation [rows, E]."""
    return model.readout.inputs(model.features(model_batch(batch)))
