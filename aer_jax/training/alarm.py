"""What a run says when its numbers stop being numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aer_jax.errors import UserError
from aer_jax.files import replace_text
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


def refuse_not_finite(value: float, what: str, step: int) -> None:
    """Raise a UserError where `what`, as `value`, is infinite or no number."""
    if not math.isfinite(value):
        raise UserError(
            f"{what} is not finite at step {step}; lower train.lr and train.head_lr and begin a new run. The best "
            "checkpoint so far stays."
        )
