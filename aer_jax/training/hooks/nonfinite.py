"""Non-finite losses and gradients end a run, and what led to them is written down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_text
from aer_jax.training.distributed import is_first

FILE = "not_finite.json"
# The base's weights themselves are finite, which is checked when they are loaded.
NOT_LEARNED = (
    "nothing has been learned yet, so look at the base: its weights may be damaged, or too large for model.dtype."
)
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
    report = {"step": step, "epoch": epoch, "measured": named, "batch": list(clips)}
    if is_first():
        replace_text(folder / FILE, json.dumps(report, indent=2) + "\n")
    first = ", ".join(str(clip["utterance"]) for clip in clips[:NAMED])
    others = f" and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
    advice = (
        "listen to them, or lower train.lr and train.head_lr, and begin a new run. The checkpoints from before stay."
    )
    return UserError(
        f"the loss, its gradient or the update is not finite at step {step} (epoch {epoch}; clips {first}{others}, see "
        f"{folder / FILE}); {NOT_LEARNED if step == 1 else advice}"
    )


def refuse_features(inputs_ne: np.ndarray, ids: Sequence[str]) -> None:
    """Refuse features of a frozen base that are not finite, naming the clips; one row per clip."""
    bad_n = ~np.isfinite(inputs_ne).all(axis=1)
    if bad_n.any():
        raise UserError(
            f"what the frozen base computes of {bad_n.sum()} of {len(ids)} clips is not finite, the first is "
            f"{ids[int(bad_n.argmax())]}; "
            + (NOT_LEARNED if bad_n.all() else "listen to them, and leave them out of the dataset if they are damaged.")
        )


def refuse_not_finite(value: float, what: str, step: int) -> None:
    """Refuse a `value` that is infinite or NaN; `what` names it."""
    if not math.isfinite(value):
        raise UserError(
            f"{what} is not finite at step {step}; lower train.lr and train.head_lr and begin a new run. The best "
            "checkpoint so far stays."
        )
