"""Checkpoints of the whole state, to resume from: after every epoch, and after a step where a save is due."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.hooks.hook import Hook

if TYPE_CHECKING:
    from aer_jax.training.trainer import Training


class SaveState(Hook):
    """Saves into `checkpoints`; last in the list, since it saves what the other hooks decided."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def on_step(self, training: Training) -> None:
        if training.saving and not training.epoch_ends:
            self._save(training)

    def on_epoch(self, training: Training, losses: Mapping[str, float]) -> None:
        if training.step:
            self._save(training)

    def _save(self, training: Training) -> None:
        self._checkpoints.save(training.step, {"learned": training.resumable()})
        training.saved_at = time.monotonic()
