"""TensorBoard event files."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from aer_jax.jax_setup import without_torch

with without_torch():
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary

FLUSH_SECONDS = 10
SPEED = ("second", "mfu", "hbm")


class TensorBoard:
    """An event file of scalars.

    tensorboardX's SummaryWriter writes from a thread, where a full disk would go unheard and block the run; its file
    format is all that is needed here.

    Args:
        folder: what `tensorboard --logdir` is given.
        step: steps done so far; what an earlier process wrote beyond them is hidden.
    """

    def __init__(self, folder: Path, step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}.{step}")
        self._flushed = time.monotonic()
        start = Event(step=step + 1, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
        self._writer.write_event(start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a step, under train/, validation/ and speed/."""
        scalars = [Summary.Value(tag=tag(name), simple_value=value) for name, value in values.items()]
        self._writer.write_event(Event(step=step, wall_time=time.time(), summary=Summary(value=scalars)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put everything on disk."""
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()


def tag(name: str) -> str:
    """TensorBoard's tag of a metric."""
    if name.startswith("val_"):
        return f"validation/{name.removeprefix('val_')}"
    return f"speed/{name}" if any(part in name for part in SPEED) else f"train/{name}"
