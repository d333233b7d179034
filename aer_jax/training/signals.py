"""Signals of a run: Ctrl-C and SIGTERM before and during its steps. Imports no JAX."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aer_jax.errors import Unfinished


class Stopped(Unfinished):
    """The run was saved and stopped by a signal."""


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
