"""Frame sizes of MP3, AAC and AMR by their frame headers.

These streams have no length of their own and decoders search for the next frame without a word, so a frame of another
size is the only trace of bytes that are lost or of a file that ends too early.
"""

from __future__ import annotations

# kbit/s by index, from 1: ISO/IEC 11172-3 and 13818-3.
_LAYER_3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LAYER_2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_LOW_RATE = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = (44100, 48000, 32000)
# Bytes by mode: RFC 4867.
_AMR = {"amrnb": (13, 14, 16, 18, 20, 21, 27, 32, 6), "amrwb": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6)}


def frame_size(codec: str, container: str, head: bytes) -> int | None:
    """Bytes of a frame by its header.

    Args:
        codec, container: FFmpeg's names.
        head: the frame's first seven bytes.

    Returns:
        0 where the header is no header; None for codecs whose frames do not say.
    """
    if codec.startswith(("mp3", "mp2")):
        return _mpeg(head)
    if codec == "aac" and container == "aac":
        return ((head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5) if len(head) == 7 and head[0] == 0xFF else 0
    if container in ("amr", "amrnb", "amrwb"):
        sizes, mode = _AMR.get(codec.removeprefix("lib"), ()), head[0] >> 3
        return 0 if head[0] & 0x83 else sizes[mode] if mode < len(sizes) else 1
    return None


def _mpeg(head: bytes) -> int | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer not in (2, 3) or rate == 3 or bits == 15:
        return 0
    if bits == 0:  # "free format" says nothing
        return None
    table = _LOW_RATE if version != 3 else _LAYER_3 if layer == 3 else _LAYER_2
    halved = {3: 0, 2: 1, 0: 2}[version]  # MPEG 1, 2 and 2.5
    samples_per_byte = 72 if version != 3 and layer == 3 else 144
    return samples_per_byte * table[bits - 1] * 1000 // (_RATES[rate] >> halved) + padding
