"""The training step on abstract arrays: traced and compiled for a mesh whose devices need not exist."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from transformers import Qwen2AudioConfig

from aer_jax.base.config import read_config
from aer_jax.config import Config, ModelConfig
from aer_jax.models.answers_head import Labels
from aer_jax.models.emotion_model import STATISTICS, EmotionModel
from aer_jax.models.random_checkpoint import published_config
from aer_jax.models.sharding import BATCH, key_names, replicated, sharding
from aer_jax.plan.shapes import BatchShape
from aer_jax.training.optimizer import make_optimizer, schedule
from aer_jax.training.step import SplitModel, TrainState, make_train_step, split_model

STEPS = 1000  # of the learning rate's schedule: a number in the program, not a shape


class AbstractStep(NamedTuple):
    """Arguments of the compiled step, as shapes with shardings.

    Attributes:
        state: step, trainables, moments.
        frozen: the base in `model.dtype`, and the head's statistics.
        batch: [microbatches, rows, ...] as the data pipeline makes it.
    """

    state: TrainState
    frozen: nnx.State
    batch: dict[str, jax.ShapeDtypeStruct]


def base_config(checkpoint: str):
    """transformers' configuration of the checkpoint, or of the published 7B where none is named."""
    return read_config(checkpoint) if checkpoint else Qwen2AudioConfig.from_dict(published_config())


def abstract_step(config: Config, mesh: Mesh | AbstractMesh, shape: BatchShape, classes: int) -> AbstractStep:
    """The arguments of a run's step on a mesh.

    Args:
        config: of the run; batch and microbatch must suit the mesh.
        mesh: over real devices, a topology's, or none.
        shape: of its batches.
        classes: number of emotions.
    """
    parts = _parts(config.model, classes)
    statistics, weights = parts.frozen.split(STATISTICS, ...)
    dtype = jnp.dtype(config.model.dtype)

    def placed(path, leaf, dtype=None) -> jax.ShapeDtypeStruct:
        where = sharding(mesh, key_names(path), leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=where)

    frozen = nnx.merge_state(
        jax.tree.map_with_path(placed, statistics),
        jax.tree.map_with_path(lambda path, leaf: placed(path, leaf, dtype), weights),
    )
    moments = jax.eval_shape(make_optimizer(config.train, STEPS).init, parts.trainable)
    state = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated(mesh)),  # type: ignore[arg-type]  # for an array
        jax.tree.map_with_path(placed, parts.trainable),
        jax.tree.map_with_path(placed, moments),
    )
    return AbstractStep(state, frozen, _batch(config, mesh, shape, classes))


def trace(config: Config, mesh: Mesh | AbstractMesh, step: AbstractStep) -> Any:
    """The step traced on its abstract arguments: `.jaxpr`, and `.lower(...)` where the mesh has devices."""
    settings, classes = config.train, step.batch["target"].shape[-1]
    function = make_train_step(
        _parts(config.model, classes).graphdef,
        make_optimizer(settings, STEPS),
        rate=schedule(settings.lr, settings.warmup, STEPS),
        entropy_weight=settings.entropy_weight,
        seed=config.seed,
    )
    with jax.sharding.use_abstract_mesh(mesh) if isinstance(mesh, AbstractMesh) else jax.set_mesh(mesh):
        return function.trace(*step)


def _labels(classes: int) -> Labels:
    """Two tokens for each label, where no tokenizer is there to ask."""
    return tuple((label, classes) for label in range(classes))


@functools.lru_cache(maxsize=8)
def _parts(config: ModelConfig, classes: int) -> SplitModel:
    base = base_config(config.checkpoint)
    return split_model(nnx.eval_shape(lambda: EmotionModel(base, config, classes, _labels(classes), rngs=nnx.Rngs(0))))


def _batch(
    config: Config, mesh: Mesh | AbstractMesh, shape: BatchShape, classes: int
) -> dict[str, jax.ShapeDtypeStruct]:
    rows = (config.train.batch // config.train.microbatch, config.train.microbatch)
    where = NamedSharding(mesh, P(None, *BATCH))
    kinds = {
        "audio": ((shape.samples,), jnp.float32),
        "audio_samples": ((), jnp.int32),
        "tokens": ((shape.tokens,), jnp.int32),
        "token_mask": ((shape.tokens,), jnp.bool_),
        "target": ((classes,), jnp.float32),
        "weight": ((), jnp.float32),
        "row": ((), jnp.int32),
    }
    batch = {name: jax.ShapeDtypeStruct((*rows, *own), dtype, sharding=where) for name, (own, dtype) in kinds.items()}
    return batch | {"prefix": jax.ShapeDtypeStruct((shape.prefix,), jnp.int32, sharding=replicated(mesh))}


def chip_bytes(tree) -> int:
    """Bytes that one chip holds of abstract arrays with shardings, before any padding of its own."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
