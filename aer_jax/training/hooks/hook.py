"""The interface of hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aer_jax.training.trainer import Training


class Hook:
    """Called by the trainer, in the order of its list; override what is needed."""

    def on_start(self, training: Training) -> None:
        """Before the first step of this process."""

    def on_step(self, training: Training) -> None:
        """After each step; its metrics are in `training.metrics`, still on the devices."""

    def on_epoch(self, training: Training, losses: Mapping[str, float]) -> None:
        """After an epoch's last step and its validation; also at step 0 with the losses of a fitted readout."""

    def on_end(self, training: Training) -> None:
        """When the run ends or fails; in the reverse order of the list."""
