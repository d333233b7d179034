"""AdamW with clipping, warm-up and a cosine to zero; adapters and head have learning rates of their own."""

from __future__ import annotations

import jax
import optax

from aer_jax.config import TrainConfig
from aer_jax.models.emotion_model import key_names


def schedule(peak: float, warmup: float, steps: int) -> optax.Schedule:
    """Linear warm-up from zero over a share of all steps, then a cosine that reaches zero with the last one."""
    steps = max(steps, 1)
    rising = min(max(1, round(warmup * steps)), steps - 1)
    return optax.warmup_cosine_decay_schedule(0.0, peak, rising, steps)


def make_optimizer(config: TrainConfig, steps: int) -> optax.GradientTransformation:
    """The run's optimizer.

    Args:
        config: rates, decay, clipping.
        steps: optimizer steps of the whole run.
    """

    def adamw(peak: float) -> optax.GradientTransformation:
        return optax.adamw(schedule(peak, config.warmup, steps), weight_decay=config.weight_decay)

    def group(path, _) -> str:
        return "head" if "emotion_head" in key_names(path) else "adapters"

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.multi_transform(
            {"adapters": adamw(config.lr), "head": adamw(config.head_lr)},
            lambda trainable: jax.tree.map_with_path(group, trainable),
        ),
    )
