"""Preemption: Ctrl-C or SIGTERM end a run between two steps, after a save; so do clouds and schedulers.

JAX's preemption sync point is not used: it knows SIGTERM alone and needs a coordination service, which one process has
not; Ctrl-C and saves by the clock need an agreement of all processes, too.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.experimental import multihost_utils

from aer_jax.training.hooks.hook import Hook
from aer_jax.training.signals import stop_signals

if TYPE_CHECKING:
    from aer_jax.training.trainer import Training

CONTINUE, SAVE, STOP = 0, 1, 2


class Preemption(Hook):
    """Decides after each step, for all processes alike, whether to save and whether to stop.

    Args:
        checkpoint_minutes: a save is due so long after the last one.
    """

    def __init__(self, checkpoint_minutes: float):
        self._seconds = 60 * checkpoint_minutes
        self._signals = ExitStack()

    def on_start(self, training: Training) -> None:
        self._stop = self._signals.enter_context(stop_signals())
        training.saved_at = time.monotonic()

    def on_step(self, training: Training) -> None:
        due = time.monotonic() - training.saved_at > self._seconds
        decision = _agreed(STOP if self._stop.is_set() else SAVE if due else CONTINUE)
        training.saving = decision != CONTINUE
        training.preempted = decision == STOP

    def on_end(self, training: Training) -> None:
        self._signals.close()


def _agreed(request: int) -> int:
    if jax.process_count() == 1:
        return request
    with jax.transfer_guard("allow"):
        return int(np.max(multihost_utils.process_allgather(np.int32(request))))
