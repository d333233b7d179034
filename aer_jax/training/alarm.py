"""What a run says when its numbers stop being numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aer_jax.errors import UserError
from aer_jax.files import replace_text
from aer_jax.models.emotion_model import key_names
from aer_jax.training.processes import is_first

FILE = "not_finite.json"
NAMED = 3  # clips in the sentence; all of them are in the file


def not_finite(
    folder: Path, step: int, epoch: int, values: Mapping[str, float], clips: Sequence[Mapping[str, Any]]
) -> UserError:
    """The error of a step whose numbers are not finite; the step, its numbers and its batch are written down.

    Args:
        folder: the run directory.
        step, epoch: which.
        values: what was measured.
        clips: the batch, see `TrainBatches.contents`.
    """
    named = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    found = {"step": step, "epoch": epoch, "measured": named, "batch": list(clips)}
    if is_first():
        replace_text(folder / FILE, json.dumps(found, indent=2) + "\n")
    first = ", ".join(str(clip["utterance"]) for clip in clips[:NAMED])
    others = f" and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
    return UserError(
        f"the loss, its gradient or the update is not finite at step {step} (epoch {epoch}; clips {first}{others}, see "
        f"{folder / FILE}); listen to them, or lower train.lr and train.head_lr, and begin a new run. The checkpoints "
        "from before stay."
    )


def refuse_base(weights: Any, checkpoint: str) -> None:
    """Raise a UserError where one of the base's weights is infinite or no number; all processes must call it together.

    Args:
        weights: arrays, on the devices.
        checkpoint: where they are from.
    """
    finite = jax.jit(lambda array: jnp.isfinite(array).all())
    for path, array in jax.tree.leaves_with_path(weights):
        if jnp.issubdtype(array.dtype, jnp.floating) and not jax.device_get(finite(array)):
            name = ".".join(map(str, key_names(path)))
            raise UserError(
                f"the base {checkpoint} holds weights that are not finite (the first in {name}), so every number "
                "computed with it is none; copy its files again, or take another base."
            )


def refuse_features(inputs_ne: np.ndarray, ids: Sequence[str], weights: Any, checkpoint: str) -> None:
    """Raise a UserError where what a frozen base computes of clips is not finite, because of the base or the clips.

    Args:
        inputs_ne: a row per clip of `ids`.
        weights, checkpoint: see `refuse_base`.
    """
    bad_n = ~np.isfinite(inputs_ne).all(axis=1)
    if bad_n.any():
        refuse_base(weights, checkpoint)
        first = ids[int(bad_n.argmax())]
        raise UserError(
            f"what the frozen base computes of {bad_n.sum()} of {len(ids)} clips is not finite, the first is {first}; "
            "listen to them, or set model.dtype=float32 where it is bfloat16."
        )


def refuse_not_finite(value: float, what: str, step: int) -> None:
    """Raise a UserError where `what`, as `value`, is infinite or no number."""
    if not math.isfinite(value):
        raise UserError(
            f"{what} is not finite at step {step}; lower train.lr and train.head_lr and begin a new run. The best "
            "checkpoint so far stays."
        )
