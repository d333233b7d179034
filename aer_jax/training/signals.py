"""Stopping when asked: Ctrl-C, a scheduler's SIGTERM or a cloud's notice end a run between two steps, after a save."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aer_jax.errors import Unfinished
from aer_jax.training.notices import heed_notices


class Stopped(Unfinished):
    """The run was saved and stopped because somebody asked for it."""


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM or a notice sets, see notices.py; a second SIGINT interrupts at once."""
    stop = threading.Event()

    def request(number: int, _) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        with heed_notices(stop):
            yield stop
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with heed_notices(stop):
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
