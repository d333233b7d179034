"""What the readout sees of a clip, brought to mean 0 and deviation 1 over some of the training clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training.processes import fetch
from aer_jax.training.step import model_batch, to_device

CLIPS = 256  # enough for a few per cent


def standardise(model: EmotionModel, batches: Iterable[Mapping[str, Any]], mesh: jax.sharding.Mesh) -> None:
    """Measure mean and deviation of the readout's inputs over the clips of `batches`, in place."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def inputs(state, batch):
        model = nnx.merge(graphdef, state)
        return model.readout.inputs(model.features(model_batch(batch)))

    rows = []
    for batch in batches:
        laid = to_device(batch, mesh)
        row_b, inputs_be = fetch((laid["row"], inputs(state, laid)))
        rows.append(inputs_be[row_b >= 0])
    inputs_ne = np.concatenate(rows)
    for variable, value in (
        (model.readout.mean, inputs_ne.mean(axis=0)),
        (model.readout.deviation, inputs_ne.std(axis=0) + 1e-5),
    ):
        variable.set_value(jax.device_put(value, variable.sharding))
