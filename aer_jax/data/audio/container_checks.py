"""Truncated and concatenated files, found by the sizes in the container."""

from __future__ import annotations

import struct
from typing import BinaryIO

from aer_jax.data.audio.bad_audio import cut_short, damaged, joined

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
# Matroska's elements: these hold others, and their end may be unknown; below, what lies in and between them.
_MATROSKA_PARENTS = {0x18538067, 0x1F43B675}
_MATROSKA_ELEMENTS = {
    0x1A45DFA3, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367, 0xEC, 0xBF, 0xE7,
    0xA3, 0xA0, 0xAB, 0xA7, 0x5854, 0xAF,
}  # fmt: skip


def check_container(format: str, file: BinaryIO, size: int, where: str) -> None:
    """Refuse a truncated file and two files in one.

    Args:
        format: FFmpeg's name.
        file: of the file system.
        size: its bytes.
        where: how messages name it.

    Raises:
        BadAudio: it is cut short, or two files in one.
    """
    if format.startswith("mov"):
        _walk_boxes(file, size, where)
    elif format in _SIGNATURE_BYTES:
        _search_second(_SIGNATURE_BYTES[format], file, where)
    if format == "matroska,webm":
        _walk_elements(file, size, where)
    elif (end := declared_size(format, file)) and size < end:
        raise cut_short(where, f"{size} of {end} bytes")


def declared_size(format: str, file: BinaryIO) -> int:
    """Bytes of the file by its header; 0 where unknown."""
    file.seek(0)
    head = file.read(4096)
    if format in ("wav", "avi") and len(head) > 8:
        size = 8 + int.from_bytes(head[4:8], "little")
        return size if size < 0x7FFF_0000 else 0  # a placeholder
    place = head.find(_ASF_PROPERTIES) + 40 if format == "asf" else 39
    return int.from_bytes(head[place : place + 8], "little") if place > 39 else 0


def _walk_boxes(file: BinaryIO, size: int, where: str) -> None:
    """MP4 and its kin: the outermost boxes end with the file, and only one is ftyp."""
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


def _walk_elements(file: BinaryIO, size: int, where: str) -> None:
    """Matroska: elements follow one another without a gap, over which FFmpeg skips silently."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(12)
        long = 9 - head[0].bit_length()  # of its name, by the first bit that is 1
        width = 9 - head[long].bit_length() if long < len(head) else 9
        name = int.from_bytes(head[:long], "big")
        known = name in _MATROSKA_PARENTS or name in _MATROSKA_ELEMENTS
        if not known or long + width > len(head):
            if place + long + width > size:
                raise cut_short(where, f"it ends inside an element at byte {place}")
            raise damaged(where, f"what begins at byte {place} is no element of it")
        length = int.from_bytes(head[long : long + width], "big") & ((1 << 7 * width) - 1)
        unknown = length == (1 << 7 * width) - 1
        place += long + width
        if not unknown and place + length > size:
            raise cut_short(where, f"{size} of {place + length} bytes")
        if name not in _MATROSKA_PARENTS:
            place += length


def _search_second(count: int, file: BinaryIO, where: str) -> None:
    file.seek(0)
    signature = file.read(count)
    place, before = count, b""
    while block := file.read(_BLOCK):
        position = (before + block).find(signature)
        if position >= 0:
            raise joined(where, f"a second header begins at byte {place - len(before) + position}")
        place += len(block)
        before = block[1 - count :]
