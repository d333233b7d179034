"""Audio files and waveforms: reading, what makes a clip unusable, FLAC, and the model's 16 kHz."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.corpora.base import Waveform
from aer_jax.data.audio.bad_audio import BadAudio, pointer, unreadable
from aer_jax.data.audio.files import open_audio, open_bytes
from aer_jax.data.audio.headers import finished
from aer_jax.data.audio.ogg_pages import check_pages
from aer_jax.data.audio.pcm import pcm_seconds, read_pcm
from aer_jax.data.audio.stream import read_stream, stream_seconds

# 1e-4 is three steps of 16 bit: the dither of a silent recording stays below, speech is far above.
SILENT_PEAK = 1e-4
# A click, or one damaged sample next to which all others vanish, is shorter than any sound of speech.
_CLICK_SECONDS = 0.02
# Shorter than any spoken word, and the audio tower needs 30 ms for its first token.
SHORTEST_SECONDS = 0.1


def read_audio(path: str | Path) -> Waveform:
    """Read one audio file as mono in [-1, 1] at its own rate.

    Args:
        path: any format of libsndfile or FFmpeg (WAV, FLAC, MP3, M4A, Opus, WMA, ...); of a video its audio track.

    Raises:
        BadAudio: the file is missing, unreadable, cut short, empty, silent or not finite; a UserError.
    """
    return usable(decode(path), str(path))[0]


def decode(path: str | Path) -> Waveform:
    """Decode a file, channels mixed by `mono`, without further checks.

    Raises:
        BadAudio: it cannot be read, or not whole.
    """
    where = f"the audio file {path}"
    with open_audio(path, where) as file:
        return _decode(file, where)


def decode_bytes(content: bytes, where: str) -> Waveform:
    """`decode` of a file's bytes; `where` is how messages name it."""
    with open_bytes(content) as file:
        return _decode(file, where)


def seconds(source: str | Path | bytes) -> float | None:
    """How long a recording is without decoding it; None for what cannot be read."""
    try:
        opened = open_bytes(source) if isinstance(source, bytes) else open_audio(source, "")
        with opened as file, finished(file) as whole:
            seconds = pcm_seconds(whole)
            return stream_seconds(whole) if seconds is None else seconds
    except BadAudio:
        return None


def _decode(file: BinaryIO, where: str) -> Waveform:
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise BadAudio("audio empty", f"{where} has 0 bytes; replace or remove it.")
    file.seek(0)
    head = file.read(512)
    if (placeholder := pointer(head, where)) is not None:
        raise placeholder
    if head.startswith(b"OggS"):
        check_pages(file, where)
    with finished(file) as whole:
        return _read(whole, where)


def _read(file: BinaryIO, where: str) -> Waveform:
    size = file.seek(0, io.SEEK_END)
    try:
        pcm = read_pcm(file, size, SHORTEST_SECONDS, where)
        if pcm is None:
            stretches, rate = read_stream(file, size, where)
            return Waveform(np.concatenate([mono(planes_ct.T, rate) for planes_ct in stretches]), rate)
        return Waveform(mono(*pcm), pcm[1])
    except (OSError, ValueError, MemoryError) as error:
        raise unreadable(where, error) from None


def mono(samples_tc: np.ndarray, rate: int) -> np.ndarray:
    """One channel of several: their mean, or the loudest one where they cancel each other.

    A microphone wired the wrong way round makes one channel the negative of the other, and their mean is silence. With
    power P_c of each of C channels and P of their mean, C^2 P / sum P_c is C for equal channels, 1 for independent
    ones or a single live one, and 0 where they cancel; below 1/2 in parts of the clip that hold a tenth of its power
    the loudest channel is taken for the whole clip.

    Args:
        samples_tc: float32 [samples, channels].
        rate: in Hz.

    Returns:
        float32 [samples].
    """
    mean_t = samples_tc.mean(axis=1)
    count = samples_tc.shape[1]
    if count == 1 or not np.isfinite(mean_t).all():
        return mean_t
    power, cancelled = np.zeros(count), 0.0
    for start in range(0, len(samples_tc), rate // 4):
        part_tc = samples_tc[start : start + rate // 4].astype(np.float64)
        power_c, left = part_tc.var(axis=0), part_tc.mean(axis=1).var()
        power += power_c * len(part_tc)
        if count**2 * left < power_c.sum() / 2:
            cancelled += power_c.sum() * len(part_tc)
    return samples_tc[:, power.argmax()].copy() if cancelled > power.sum() / 10 else mean_t


def usable(waveform: Waveform, where: str) -> tuple[Waveform, bool]:
    """Refuse silence and the like; scale down what exceeds full scale.

    Args:
        waveform: mono samples.
        where: how messages name it.

    Returns:
        The waveform as float32 in [-1, 1], and whether it had to be scaled down.

    Raises:
        BadAudio: no samples, a value that is not finite, less than `SHORTEST_SECONDS`, or silence: next to clicks,
            nothing that leaves the clip's median by `SILENT_PEAK` of full scale.
    """
    samples = np.asarray(waveform.samples, np.float32)
    if samples.ndim != 1:
        raise ValueError(f"a waveform is [samples], not {samples.shape}")
    if samples.size == 0:
        raise BadAudio("audio empty", f"{where} holds no samples; replace or remove it.")
    if not np.isfinite(samples).all():
        raise BadAudio("audio not finite", f"{where} holds samples that are not finite; export it again.")
    seconds = samples.size / waveform.rate
    if seconds < SHORTEST_SECONDS:
        raise BadAudio("audio too short", f"{where} lasts {seconds:.3f} s; a clip needs {SHORTEST_SECONDS} s or more.")
    peak = float(np.abs(samples).max())
    scaled = samples / np.float32(max(peak, 1.0))
    audible = np.count_nonzero(np.abs(scaled - np.median(scaled)) >= SILENT_PEAK)
    if audible < _CLICK_SECONDS * waveform.rate:
        what = "silent" if audible == 0 else f"silent but for {audible} samples"
        raise BadAudio("audio silent", f"{where} is {what} (below {SILENT_PEAK:.0e} of full scale); remove it.")
    return Waveform(scaled, waveform.rate), peak > 1


def to_16k(waveform: Waveform) -> np.ndarray:
    """float32 [samples] at 16 kHz, by soxr's HQ resampler; unchanged where the rate is 16 kHz already."""
    samples = np.asarray(waveform.samples, np.float32)
    if waveform.rate == SAMPLE_RATE:
        return samples
    return soxr.resample(samples, waveform.rate, SAMPLE_RATE, quality="HQ")


def encode_flac(waveform: Waveform) -> bytes:
    """FLAC with 16 bits, mono, at the waveform's rate; 16-bit sources come back bit for bit.

    Raises:
        BadAudio: a rate that FLAC does not know.
    """
    # libsndfile would multiply by 32767 on the way out but divide by 32768 on the way in.
    steps = np.clip(np.rint(waveform.samples * np.float32(32768)), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, steps, waveform.rate, format="FLAC", subtype="PCM_16")
    except soundfile.SoundFileError:
        raise BadAudio(
            "audio rate unknown to FLAC", f"FLAC has no rate of {waveform.rate} Hz; resample the clip."
        ) from None
    return buffer.getvalue()


def decode_flac(flac: bytes) -> Waveform:
    """The inverse of `encode_flac`."""
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
    return Waveform(samples, rate)
