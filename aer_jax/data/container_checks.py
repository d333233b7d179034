"""Whether a file is one file and whole, by the sizes that its container writes down."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from aer_jax.data.bad_audio import cut_short, joined

# What a file of this format begins with; the same bytes again are a second file behind it.
_SIGNATURE_BYTES = {
    "matroska,webm": 8,
    "asf": 16,
    "amr": 6,
    "tta": 6,
    "flac": 8,
    "flv": 5,
    "caf": 8,
    "ape": 6,
    "nut": 16,
}
_BLOCK = 2**20
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Matroska: a block of sound with its size and track, or a cluster of such; behind the last packet it is lost sound.
_MATROSKA_SOUND = re.compile(
    rb"\xa3(?:[\x80-\xff]|[\x40-\x7f].|[\x20-\x3f]..)[\x81-\x8f]|\xa0(?:[\x80-\xff]|[\x40-\x7f].)\xa1|\x1f\x43\xb6\x75",
    re.DOTALL,
)


def check_container(format: str, file: BinaryIO, size: int, last_byte: int, where: str) -> None:
    """Look for a cut end and a second beginning.

    Args:
        format: FFmpeg's name.
        file: of the file system.
        size: its bytes.
        last_byte: where the last packet ends.
        where: how messages name it.

    Raises:
        BadAudio: it is cut short, or two files in one.
    """
    if format.startswith("mov"):
        _walk_boxes(file, size, where)
    elif format in _SIGNATURE_BYTES:
        _search_second(_SIGNATURE_BYTES[format], file, where)
    if format == "matroska,webm":
        file.seek(last_byte + 4)  # FFmpeg's place of a packet leaves out the four bytes of its block's header
        if _MATROSKA_SOUND.match(file.read(8)):
            raise cut_short(where, f"nothing could be decoded from byte {last_byte} on")
    elif (end := declared_size(format, file)) and size < end:
        raise cut_short(where, f"{size} of {end} bytes")


def declared_size(format: str, file: BinaryIO) -> int:
    """Bytes of the whole file by its header; 0 where it does not say."""
    file.seek(0)
    head = file.read(4096)
    if format in ("wav", "avi") and len(head) > 8:
        size = 8 + int.from_bytes(head[4:8], "little")
        return size if size < 0x7FFF_0000 else 0  # a placeholder
    place = head.find(_ASF_PROPERTIES) + 40 if format == "asf" else 39
    return int.from_bytes(head[place : place + 8], "little") if place > 39 else 0


def _walk_boxes(file: BinaryIO, size: int, where: str) -> None:
    """The outermost boxes of MP4 and its kin end where the file ends, and only one names the kind of file."""
    place = kinds = 0
    while place + 8 <= size:
        file.seek(place)
        length, name, long = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        kinds += name == b"ftyp"
        if kinds > 1:
            raise joined(where, f"a second header begins at byte {place}")
        if length == 0:  # to the end
            return
        if (length == 1 and long < 16) or 1 < length < 8:
            return  # what no box is; FFmpeg has read what it could
        place += long if length == 1 else length
    if place > size:
        raise cut_short(where, f"{size} of {place} bytes")


def _search_second(count: int, file: BinaryIO, where: str) -> None:
    """FFmpeg stops at the end of the first file, or takes the second one's index for the first one's."""
    file.seek(0)
    signature = file.read(count)
    place, before = count, b""
    while block := file.read(_BLOCK):
        found = (before + block).find(signature)
        if found >= 0:
            raise joined(where, f"a second header begins at byte {place - len(before) + found}")
        place += len(block)
        before = block[1 - count :]
