"""Early stopping: keep the best weights, and end a run whose validation loss no longer falls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.hooks.hook import Hook

if TYPE_CHECKING:
    from aer_jax.training.trainer import Training


class EarlyStopping(Hook):
    """Keeps the weights of the best validation loss.

    Args:
        best: where they go.
        patience: epochs without a better loss before the run stops.
    """

    def __init__(self, best: Checkpoints, patience: int):
        self._best, self._patience = best, patience

    def on_start(self, training: Training) -> None:
        self._look(training)

    def on_epoch(self, training: Training, losses: Mapping[str, float]) -> None:
        loss, early = losses["val_loss"], training.early
        improved = loss < early["best_loss"]
        if improved:
            self._best.save(training.step, {"learned": training.learned()})
            self._best.wait()  # before a checkpoint that counts on it
        if training.step == 0:
            speakers = "the validation speakers" if training.total_steps else "speakers left out"
            training.say(f"{training.run.config.model.head}: JS {losses['val_js']:.4f} (base 2) on {speakers}")
            training.early = early | {"best_loss": np.array(loss)}
            return
        training.early = {
            "best_loss": np.array(min(early["best_loss"], loss)),
            "stale_epochs": np.array(0 if improved else early["stale_epochs"] + 1),
        }
        mark = "best so far" if improved else f"{training.early['stale_epochs']} since the best"
        training.say(f"epoch {training.epoch}: validation JS {losses['val_js']:.4f} (base 2), {mark}")
        self._look(training)

    def _look(self, training: Training) -> None:
        training.converged = bool(training.early["stale_epochs"] >= self._patience)


def no_epochs_yet() -> dict[str, np.ndarray]:
    """Initial state of early stopping, which is part of every checkpoint."""
    return {"best_loss": np.array(math.inf), "stale_epochs": np.array(0)}
