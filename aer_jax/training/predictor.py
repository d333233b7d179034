"""A model that predicts: batches in, distributions out, one step behind the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from aer_jax.errors import UserError
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.emotion_model import TRAINABLE, load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.run import Run
from aer_jax.training.step import make_predict_step, take_apart, to_device

Predict = Callable[[dict[str, jax.Array]], jax.Array]


def predict_rows(
    batches: Iterable[Mapping[str, np.ndarray]], rows: int, classes: int, predict: Predict, mesh: Mesh
) -> np.ndarray:
    """Logits of every row of an evaluation stream.

    Args:
        batches: with `row` counting in 0..rows-1, -1 for filler.
        predict: device batch -> logits.

    Returns:
        float32 [rows, classes]; a row that never came is NaN.
    """
    logits_nk = np.full((rows, classes), np.nan, np.float32)
    waiting: tuple[np.ndarray, jax.Array] | None = None

    def collect(row_b: np.ndarray, logits: jax.Array) -> None:
        real_b = row_b >= 0
        logits_nk[row_b[real_b]] = jax.device_get(logits)[real_b]

    for batch in batches:
        logits = predict(to_device(batch, mesh))
        if waiting is not None:
            collect(*waiting)
        waiting = (batch["row"], logits)
    if waiting is not None:
        collect(*waiting)
    return logits_nk


def restore(run: Run) -> tuple[Predict, Mesh]:
    """The best model of a run.

    Raises:
        UserError: no checkpoint has been kept yet, or it does not fit.
    """
    mesh = make_mesh(run.config.mesh)
    best = Checkpoints(run.path / "best", keep=1)
    step = best.latest
    if step is None:
        raise UserError(f"{run.path} has no best checkpoint yet; let `aer-jax train` reach the end of its first epoch.")
    with jax.set_mesh(mesh):
        model = load_model(run.config.model, len(run.classes), mesh, run.config.seed)
    learned = best.load(step, {"learned": learned_state(model)})["learned"]
    nnx.update(model, learned)
    best.close()
    parts = take_apart(model)
    predict = make_predict_step(parts.graphdef)
    return (lambda batch: predict(parts.trainable, parts.frozen, batch)), mesh


def learned_state(model: nnx.Module) -> nnx.State:
    """What a run adds to its base: trainables and the head's statistics."""
    return nnx.state(model, nnx.Any(TRAINABLE, HeadStatistics))
