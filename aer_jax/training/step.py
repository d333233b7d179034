"""Training and prediction step, compiled once per batch shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aer_jax.base.lengths import frame_count
from aer_jax.models.emotion_model import TRAINABLE, EmotionModel, ModelInputs
from aer_jax.models.sharding import BATCH, key_names, replicated, sharding
from aer_jax.training.distributed import host_of
from aer_jax.training.objective import bhattacharyya, jensen_shannon, objective


class TrainState(NamedTuple):
    """State of training: step count, adapters and head, the optimizer's moments."""

    step: jax.Array
    trainable: nnx.State
    optimizer: optax.OptState


class SplitModel(NamedTuple):
    """A model split into structure, trainables and frozen rest; gradients and donation concern the trainables alone."""

    graphdef: nnx.GraphDef
    trainable: nnx.State
    frozen: nnx.State


def split_model(model: EmotionModel) -> SplitModel:
    """`nnx.split` by what is trained."""
    return SplitModel(*nnx.split(model, TRAINABLE, ...))


def init_state(parts: SplitModel, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Step 0; the moments live where their parameters live, scalars on every device."""
    abstract = jax.eval_shape(optimizer.init, parts.trainable)
    shardings = jax.tree.map_with_path(lambda path, leaf: sharding(mesh, key_names(path), leaf.shape), abstract)
    moments = jax.jit(optimizer.init, out_shardings=shardings)(parts.trainable)
    step = jax.device_put(np.zeros((), np.int32), replicated(mesh))
    return TrainState(step, parts.trainable, moments)


def model_batch(batch: Mapping[str, Any]) -> ModelInputs:
    """The fields of a data batch that the model reads."""
    return ModelInputs(**{name: batch[name] for name in ModelInputs._fields})


def to_device(batch: Mapping[str, np.ndarray], mesh: Mesh, microbatch: int | None = None) -> dict[str, jax.Array]:
    """Lay a host batch over the mesh, rows divided over `data` and `fsdp`; each device has all of the prefix.

    Args:
        batch: numpy arrays [rows, ...], and the prefix; where several processes share a batch, this one's rows of it.
        microbatch: rows of a microbatch over all processes. Arrays then become [microbatches, microbatch, ...], the
            second axis divided; row i goes to microbatch i modulo their number, so that each process has its part of
            every microbatch and the padding rows at a batch's end are shared out.
    """
    common, rows = _common_and_rows(batch)
    if microbatch is not None:
        mine = microbatch // host_of(mesh).count
        rows = {name: a.reshape(mine, -1, *a.shape[1:]).swapaxes(0, 1) for name, a in rows.items()}
    by_rows = NamedSharding(mesh, BATCH if microbatch is None else P(None, *BATCH))
    shardings = dict.fromkeys(common, replicated(mesh)) | dict.fromkeys(rows, by_rows)
    if jax.process_count() == 1:
        return jax.device_put(common | rows, shardings)
    with jax.transfer_guard("allow"):  # an implicit transfer
        return {name: jax.make_array_from_process_local_data(shardings[name], a) for name, a in (common | rows).items()}


def _common_and_rows(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    common = {"prefix": batch["prefix"]}
    return common, {name: value for name, value in batch.items() if name not in common}


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    rate: optax.Schedule,
    entropy_weight: float,
    seed: int,
    dropout: bool = True,
    shardings: TrainState | None = None,
) -> jax.stages.Wrapped:
    """The compiled step: (state, frozen, batch [microbatches, rows, ...]) -> (state, metrics).

    Gradients are summed over microbatches with their row weights and divided once, so unequal microbatches do not
    bias the step. `dropout` depends on the seed, the step and the microbatch alone, which makes a resumed run exact.
    The metrics are the loss (nats), its divergence `js` (base 2) and `bc`, means over utterances with dropout on; the
    learning rate; norms of gradient and update; and `counts`. `rate` is only reported. `shardings` are those of the
    state, for the next one too: the compiler might choose others, which a step compiled ahead would refuse. None leaves
    the choice to it.
    """

    def loss(trainable, frozen, batch, key):
        logits_bk = nnx.merge(graphdef, trainable, frozen)(model_batch(batch), key if dropout else None)
        loss_b = objective(logits_bk, batch["target"], entropy_weight)
        agreement = {
            "js": jensen_shannon(logits_bk, batch["target"]) / math.log(2),
            "bc": bhattacharyya(logits_bk, batch["target"]),
        }
        sums = jax.tree.map(lambda value_b: (value_b * batch["weight"]).sum(), {"loss": loss_b, **agreement})
        return sums["loss"], sums

    def step(state: TrainState, frozen: nnx.State, batch: dict[str, jax.Array]):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        count = batch["weight"].shape[0]
        common, rows = _common_and_rows(batch)

        def accumulate(total, microbatch):
            rows, i = microbatch
            gradient, sums = jax.grad(loss, has_aux=True)(
                state.trainable, frozen, common | rows, jax.random.fold_in(key, i)
            )
            return jax.tree.map(jnp.add, total, (gradient, sums)), None

        zero = (jax.tree.map(jnp.zeros_like, state.trainable), {name: jnp.zeros(()) for name in ("loss", "js", "bc")})
        (gradient, sums), _ = jax.lax.scan(accumulate, zero, (rows, jnp.arange(count)))
        weight = batch["weight"].sum()
        gradient = jax.tree.map(lambda g: g / weight, gradient)
        updates, moments = optimizer.update(gradient, state.optimizer, state.trainable)
        metrics = {
            **{name: total / weight for name, total in sums.items()},
            "lr": rate(state.step),
            "grad_norm": optax.tree.norm(gradient),
            "update_norm": optax.tree.norm(updates),
            **counts(batch),
        }
        return TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), moments), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=None if shardings is None else (shardings, None))


def counts(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Utterances, mel frames and positions of the prompt that are no padding, and all positions; of all processes.

    Positions are those that are computed: the prefix counts once a microbatch.
    """
    real = (batch["weight"] > 0).astype(jnp.int32)
    common = batch["weight"].shape[0] * batch["prefix"].size
    return {
        "utterances": real.sum(),
        "frames": (frame_count(batch["audio_samples"]) * real).sum(),
        "tokens": (batch["token_mask"].sum(-1) * real).sum() + common,
        "padded_tokens": jnp.asarray(batch["token_mask"].size + common),
    }


def make_predict_step(graphdef: nnx.GraphDef) -> jax.stages.Wrapped:
    """The compiled prediction without dropout: (trainable, frozen, batch [rows, ...]) -> logits [rows, classes]."""
    return jax.jit(lambda trainable, frozen, batch: nnx.merge(graphdef, trainable, frozen)(model_batch(batch)))
