"""Who is still there: a process that waits for a dead one would wait for ever inside a collective operation.

Each process writes a beat into the run directory, which all of them see, and watches the beats of the others.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aer_jax.errors import Unfinished

BEAT_SECONDS = 2.0
SILENT_SECONDS = 60.0  # so long without a beat is death; a network's file system may show a change half a minute late


@contextmanager
def alive(
    folder: Path,
    index: int,
    count: int,
    *,
    beat: float = BEAT_SECONDS,
    silent: float = SILENT_SECONDS,
    leave: Callable[[int], None] = os._exit,
) -> Iterator[None]:
    """Show that process `index` of `count` lives while the block runs, and leave when another one does not.

    Args:
        folder: where `.alive-<index>` is written; removed again at a good end, which the others take for a goodbye.
        beat, silent: seconds between two beats, and without one until a process is given up.
        leave: ends the process at once, given the exit code; the thread that waits could not be told.
    """
    if count == 1:
        yield
        return
    ended = threading.Event()
    own = folder / f".alive-{index}"

    def watch() -> None:
        others = {i: folder / f".alive-{i}" for i in range(count) if i != index}
        heard: dict[int, tuple[str, float]] = {}  # what each said last, and when that was new
        number = 0
        while True:
            own.write_text(f"{time.time()} {number}")
            number += 1
            now = time.monotonic()
            for i, file in others.items():
                said = _read(file)
                if said is None:
                    heard.pop(i, None)
                elif i not in heard or heard[i][0] != said:
                    heard[i] = (said, now)
                elif now - heard[i][1] > silent and not ended.is_set():
                    print(
                        f"\naer-jax: process {index} of {count} lost the others (no sign of life of process {i} for "
                        f"{silent:g} s); see in its log why it ended, then start all of them again with --resume.",
                        file=sys.stderr,
                        flush=True,
                    )
                    leave(Unfinished.exit_code)
                    return
            if ended.wait(beat):
                return

    thread = threading.Thread(target=watch, name="alive", daemon=True)
    thread.start()
    try:
        yield
        ended.set()
        thread.join()
        own.unlink(missing_ok=True)
    finally:
        ended.set()


def _read(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None
