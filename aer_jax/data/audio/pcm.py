"""Uncompressed audio by libsndfile, with checks of headers that libsndfile reads in spite of errors.

Half a sentence must not be trained on with the votes of the whole one, nor noise that a wrong sample width makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import soundfile

from aer_jax.data.audio.bad_audio import BadAudio, check_rate, cut_short, joined, unreadable

# Of a constant number of bits. libsndfile estimates the length of all else, or skips packets that are damaged.
_EXACT = re.compile(r"PCM_|FLOAT$|DOUBLE$|ULAW$|ALAW$|IMA_ADPCM$|MS_ADPCM$|GSM610$|G72|DWVW_|VOX_")
_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_BITS |= {"ULAW": 8, "ALAW": 8}
_FEWEST_BITS = 1.5  # of a sample in any of these
# Writers that cannot seek leave a placeholder near 2^31 or 2^32 as the length.
_PLACEHOLDER = 0x7FFF_0000
# The length of the samples in WAV, AIFF, AU; of the whole file in W64 and RF64, which WAV files often have wrong.
_LENGTH = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_STRAY = re.compile(r"^\*\*\* Unknown chunk marker \(\w+\) at position (\d+)\. Exiting parser", re.MULTILINE)
# The first block of a VOC file. FFmpeg writes many, and libsndfile takes the headers between them for samples.
_VOC_BLOCK = re.compile(r"^ *Extended II *: (\d+)", re.MULTILINE)
_NIST_SAMPLES = re.compile(rb"sample_count -i (\d+)")
_CHUNKED = (b"RIFF", b"FORM")
# Beside the samples these have a header and no chunks, which may be of any length.
_PLAIN = {"AU", "AVR", "HTK", "IRCAM", "NIST", "PAF", "PVF"}
_LONGEST_HEADER = 4096


def read_pcm(file: BinaryIO, size: int, shortest: float, where: str) -> tuple[np.ndarray, int] | None:
    """Samples and rate of an uncompressed file.

    Args:
        file: of the file system, unbuffered.
        size: its bytes.
        shortest: seconds of sound that may lie unnamed behind the samples; tags of a few bytes do.
        where: how messages name it.

    Returns:
        float32 [samples, channels] and Hz; None for what libsndfile does not read exactly.

    Raises:
        BadAudio: it is cut short, or its header contradicts itself.
    """
    file.seek(0)
    head = file.read(1024)
    _refuse_joined(file, head, size, where)
    try:
        with _open(file, head) as opened:
            if opened is None:
                return None
            check_rate(opened.samplerate, where)
            frames = opened.frames
            if frames * opened.channels > size * 8 / _FEWEST_BITS:
                raise cut_short(where, f"{frames} samples do not fit into its {size} bytes")
            samples_tc = opened.read(frames, dtype="float32", always_2d=True)
            if _is_cut_short(opened, head) or len(samples_tc) != frames:
                raise cut_short(where, f"it has {len(samples_tc)} samples")
            _refuse_second(file, head[:8], frames * _frame_bytes(opened), size, where)
            wrong = _contradiction(opened, head, size, shortest)
            block = _VOC_BLOCK.search(opened.extra_info)
            if block and frames * _frame_bytes(opened) - int(block[1]) > _LONGEST_HEADER:
                raise unreadable(where, "its samples lie in several blocks")
            rate = opened.samplerate
    except soundfile.SoundFileError:
        return None
    if wrong:
        raise BadAudio("audio header wrong", f"the header of {where} is wrong: {wrong}; copy or convert it again.")
    return samples_tc, rate


def pcm_seconds(file: BinaryIO) -> float | None:
    """Length in seconds by the header of an uncompressed file; None for other files."""
    file.seek(0)
    try:
        with _open(file, file.read(4)) as opened:
            return opened and opened.frames / opened.samplerate
    except soundfile.SoundFileError:
        return None


@contextmanager
def _open(file: BinaryIO, head: bytes) -> Iterator[soundfile.SoundFile | None]:
    if head.startswith((b"OggS", b"fLaC", b"ID3")) or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        yield None
        return
    file.seek(0)
    # By its descriptor: the ending of a name says nothing, and `.raw` would make it ask for a rate.
    with soundfile.SoundFile(file.fileno(), closefd=False) as opened:
        yield opened if _EXACT.match(opened.subtype) else None


def _refuse_joined(file: BinaryIO, head: bytes, size: int, where: str) -> None:
    """A second RIFF or FORM behind the first: libsndfile reads the first one only, or neither."""
    if head[:4] in _CHUNKED:
        end = 8 + int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        for start in (end, end + end % 2):
            if len(head) <= start < size:
                file.seek(start)
                second = file.read(12)
                if second.startswith(head[:4]) and second[8:] != b"AVIX":  # an AVI beyond a gigabyte goes on so
                    raise joined(where, f"a second header begins at byte {start}")


def _refuse_second(file: BinaryIO, signature: bytes, sound: int, size: int, where: str) -> None:
    """Refuse a second header behind the samples: two files in one, of another kind than RIFF."""
    if sound and size - sound > 2 * len(signature):
        file.seek(sound)
        if signature in file.read(size - sound):
            raise joined(where, f"a second header follows {sound} bytes of samples")


def _frame_bytes(file: soundfile.SoundFile) -> int:
    return file.channels * _BITS.get(file.subtype, 0) // 8


def _is_cut_short(file: soundfile.SoundFile, head: bytes) -> bool:
    promised = any(int(present) < int(stated) < _PLACEHOLDER for stated, present in _LENGTH.findall(file.extra_info))
    return promised or file.frames < _nist_samples(head)


def _nist_samples(head: bytes) -> int:
    match = _NIST_SAMPLES.search(head) if head.startswith(b"NIST_1A") else None
    return int(match[1]) if match else 0


def _contradiction(file: soundfile.SoundFile, head: bytes, size: int, shortest: float) -> str:
    """A contradiction in a header, or ""; fields that are 0 are unknown."""

    def field(name: str) -> int:
        match = re.search(rf"^ *{name} *: (\w+)", file.extra_info, re.MULTILINE)
        return int(match[1], 0) if match else 0

    frame_bytes = _frame_bytes(file)
    enough = shortest * file.samplerate * frame_bytes
    expected = {}
    # Of packed samples FFmpeg writes 16,000 bytes per second, whatever their rate.
    if file.format in ("WAV", "WAVEX", "W64", "RF64") and frame_bytes:
        expected = {"Block Align": frame_bytes, "Bytes/sec": file.samplerate * frame_bytes}
    elif file.format == "AIFF" and frame_bytes:
        expected = {"Frames": file.frames}
    for name, value in expected.items():
        if field(name) and field(name) != value:
            return f"its {name} is {field(name)}, its other fields make {value}"
    if 0 < _nist_samples(head) < file.frames:
        return f"it names {_nist_samples(head)} samples and holds {file.frames}"
    whole = _LENGTH.search(file.extra_info) if file.format == "W64" else None
    if whole and 0 < int(whole[1]) < int(whole[2]):
        return f"it names {whole[1]} bytes and the file has {size}"
    stray = _STRAY.search(file.extra_info)
    if stray and size - int(stray[1]) > enough:
        return f"nothing says what lies behind its byte {stray[1]}"
    named = file.frames * frame_bytes + _LONGEST_HEADER
    if file.format in _PLAIN and frame_bytes and size - named > enough:
        return f"it names {file.frames} samples and holds more"
    return ""
