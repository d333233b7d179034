"""Ogg pages: checksums, order, and that all belong to one recording.

Decoders drop a page whose checksum is wrong without a word, and half a clip passes as the whole.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from aer_jax.data.audio.bad_audio import BadAudio, cut_short, damaged, joined

_HEADER = struct.Struct("<4sBBqIIIB")
_FIRST, _LAST = 2, 4  # flags of a page: of its stream
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def check_pages(file: BinaryIO, where: str) -> None:
    """Read all pages of an Ogg file.

    Args:
        file: of the file system.
        where: how messages name it.

    Raises:
        BadAudio: a page is damaged, missing or cut, or a second recording follows the first (a chained stream).
    """
    page_of: dict[int, int] = {}  # stream -> number of its last page
    open_streams: set[int] = set()
    began, place = False, 0
    file.seek(0)
    while head := file.read(_HEADER.size):
        flags, stream, number, body = _page(head, file, where, place)
        if flags & _FIRST:
            if began:
                raise joined(where, f"a second stream begins at byte {place}")
            open_streams.add(stream)
        elif number != page_of.get(stream, -1) + 1:
            raise damaged(where, f"a page is missing before byte {place}")
        began = began or not flags & _FIRST
        page_of[stream] = number
        if flags & _LAST:
            open_streams.discard(stream)
        place += body
    if open_streams:
        raise cut_short(where, "its last page is missing")


def _page(head: bytes, file: BinaryIO, where: str, place: int) -> tuple[int, int, int, int]:
    if not head.startswith(b"OggS"):
        raise damaged(where, f"there is no page at byte {place}")
    if len(head) < _HEADER.size:
        raise _end(where)
    _, _, flags, _, stream, number, checksum, segments = _HEADER.unpack(head)
    sizes = file.read(segments)
    body = file.read(sum(sizes))
    if len(sizes) < segments or len(body) < sum(sizes):
        raise _end(where)
    page = head + sizes + body
    if _checksum(page[:22] + bytes(4) + page[26:]) != checksum:
        raise damaged(where, f"the checksum of the page at byte {place} is wrong")
    return flags, stream, number, len(page)


def _end(where: str) -> BadAudio:
    return cut_short(where, "it ends inside a page")


def _checksum(page: bytes) -> int:
    """Ogg's CRC-32: that of zlib with the bits in the other order, beginning and ending with 0."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
