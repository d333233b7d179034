"""Preemption: Ctrl-C or SIGTERM end a run between two steps, after a save; so do clouds and schedulers.

JAX's preemption sync point is not used: it knows SIGTERM alone and needs a coordination service, which one process has
not; Ctrl-C and saves by the clock need an agreement of all processes, too.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.experimental import multihost_utils

from aer_jax.errors import Unfinished
from aer_jax.training.hooks.hook import Hook

if TYPE_CHECKING:
    from aer_jax.training.trainer import Training

CONTINUE, SAVE, STOP = 0, 1, 2


class Stopped(Unfinished):
    """The run was saved and stopped by a signal."""


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
    """The largest request of any process."""
    if jax.process_count() == 1:
        return request
    with jax.transfer_guard("allow"):
        return int(np.max(multihost_utils.process_allgather(np.int32(request))))


@contextmanager
def stop_at_start() -> Iterator[None]:
    """SIGINT and SIGTERM end the process, until `stop_signals` takes over, with the code of a run that can go on.

    Before its first step a run has nothing to save, so the process ends where it stands: an exception in the midst of
    an import would abort some libraries. Python's handlers wait for the main thread, which may be in a compiler for
    minutes while a scheduler gives half a minute, so a thread, which the interpreter's C handler wakes, ends it, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read, write = socket.socketpair()
    write.setblocking(False)
    ending = threading.Lock()

    def end(number: int, frame: object) -> None:
        if ending.acquire(blocking=False):
            # The main thread may be in the middle of a print.
            os.write(2, b"\naer-jax: stopped as asked before it made a step; the same command with --resume goes on.\n")
            os._exit(Unfinished.exit_code)

    def watch() -> None:
        while number := read.recv(1):
            if number[0] in before and signal.getsignal(number[0]) is end:
                end(number[0], None)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, name="stop at start", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        write.close()
        thread.join()
        read.close()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second SIGINT interrupts at once."""
    stop = threading.Event()

    def request(number: int, _) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
