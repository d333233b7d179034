"""WAV headers without a length, as pipes and stopped recorders leave them, and BW64, which is RF64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from aer_jax.data.audio.files import open_bytes

_HEAD = 8192
_UNKNOWN = b"\xff" * 4


@contextmanager
def finished(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file with a header that libsndfile understands; the file itself where the header is complete.

    Args:
        file: of the file system.
    """
    file.seek(0)
    head = file.read(_HEAD)
    size = file.seek(0, 2)
    better = _header(head, size)
    if better == head:
        yield file
        return
    file.seek(_HEAD)
    with open_bytes(better + file.read()) as copy:
        yield copy


def _header(head: bytes, size: int) -> bytes:
    if head.startswith(b"BW64"):
        return b"RF64" + head[4:]
    if head.startswith(b"caff"):
        data = head.find(b"data" + 2 * _UNKNOWN)
        return head[: data + 4] + (size - data - 12).to_bytes(8, "big") + head[data + 12 :] if data > 0 else head
    if not head.startswith(b"RIFF") or head[8:12] != b"WAVE":
        return head
    place, data = 12, 0
    while place + 8 <= min(size, len(head)):
        length = int.from_bytes(head[place + 4 : place + 8], "little")
        if head[place : place + 4] == b"data" and length == 0:
            data = place
        place += 8 + length + length % 2
    # Where chunks lead exactly to the end, the file has no sound and tags behind.
    return head[: data + 4] + _UNKNOWN + head[data + 8 :] if data and place != size else head
