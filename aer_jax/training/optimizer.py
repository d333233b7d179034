"""AdamW with clipping, warm-up and a cosine to zero; adapters and head have learning rates of their own."""

from __future__ import annotations

from typing import Any

import jax
import optax

from aer_jax.config import TrainConfig
from aer_jax.models.sharding import key_names


def schedule(peak: float, warmup: float, *ends: int) -> optax.Schedule:
    """Linear warm-up from zero over a share of all steps, then a cosine that reaches zero with the last one.

    Args:
        peak, warmup: the highest rate, and the share of steps until it.
        ends: the number of steps; of a run that was extended, each number in turn. The added steps have a warm-up and
            a cosine of their own (warm restarts: Loshchilov and Hutter, 2017, arXiv 1608.03983).
    """
    if len(ends) > 1:
        lengths = [end - begin for begin, end in zip((0, *ends), ends, strict=False)]
        return optax.join_schedules([schedule(peak, warmup, length) for length in lengths], list(ends[:-1]))
    steps = max(ends[0], 1)
    rising = min(max(1, round(warmup * steps)), steps - 1)
    return optax.warmup_cosine_decay_schedule(0.0, peak, rising, steps)


def make_optimizer(config: TrainConfig, *ends: int, decay_all: bool = False) -> optax.GradientTransformation:
    """The run's optimizer.

    Args:
        config: rates, decay, clipping.
        ends: optimizer steps of the whole run, see `schedule`.
        decay_all: weight decay on biases and normalisation layers too, as in runs whose environment.json does not
            deny it with `biases_decay`.
    """

    def adamw(peak: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.scale_by_adam(),
            _weight_decay(config.weight_decay, decay_all),
            optax.scale_by_learning_rate(schedule(peak, config.warmup, *ends)),
        )

    def group(path, _) -> str:
        return "head" if "emotion_head" in key_names(path) else "adapters"

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.multi_transform(
            {"adapters": adamw(config.lr), "head": adamw(config.head_lr)},
            lambda trainable: jax.tree.map_with_path(group, trainable),
        ),
    )


def decays(path: tuple[Any, ...]) -> bool:
    """Whether weight decay applies: not to a bias or a normalisation layer, as in transformers' Trainer."""
    *layers, parameter = key_names(path)
    return parameter not in ("bias", "log_temperature") and not any("norm" in layer for layer in layers)


def _weight_decay(weight_decay: float, decay_all: bool) -> optax.GradientTransformation:
    # Not `optax.add_decayed_weights` with a mask: its state nests differently, and old checkpoints must restore.
    def add(path, update: jax.Array, parameter: jax.Array) -> jax.Array:
        return update + weight_decay * parameter if decay_all or decays(path) else update

    def add_all(updates: optax.Updates, parameters: optax.Params | None) -> optax.Updates:
        return jax.tree.map_with_path(add, updates, parameters)

    return optax.stateless(add_all)
