"""Audio files and waveforms: reading, what makes a clip unusable, FLAC, and the model's 16 kHz."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from aer_jax.corpora.base import Waveform
from aer_jax.data.audio_header import contradiction, is_cut_short
from aer_jax.errors import UserError
from aer_jax.lengths import SAMPLE_RATE

# 1e-4 is three steps of 16 bit: the dither of a silent recording stays below, speech is far above.
SILENT_PEAK = 1e-4
# A click, or one damaged sample beside which all others vanish, is shorter than any sound of speech.
_CLICK_SECONDS = 0.02
# Shorter than any spoken word, and the audio tower needs 30 ms for its first token.
SHORTEST_SECONDS = 0.1


class BadAudio(UserError):
    """A clip that nothing can be learned from.

    Attributes:
        reason: a few words, the same for every clip of its kind; the data report counts them.
    """

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


def read_audio(path: str | Path) -> Waveform:
    """Read one audio file as mono in [-1, 1] at its own rate.

    Args:
        path: any format of libsndfile (WAV, FLAC, Ogg, MP3, AIFF, ...).

    Raises:
        BadAudio: the file is missing, unreadable, cut short, empty, silent or not finite; a UserError.
    """
    return usable(decode(path), str(path))[0]


def decode(path: str | Path) -> Waveform:
    """The samples of a file, channels averaged, otherwise as they are."""
    path = Path(path)
    try:
        if not path.is_file():
            raise BadAudio("audio file missing", f"there is no audio file {path}; check the path.")
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise _unreadable(f"the audio file {path}", error) from None
    return _decode(path, size, f"the audio file {path}")


def decode_bytes(content: bytes, where: str) -> Waveform:
    """The same of a file's bytes that came by another way; `where` is how messages name it."""
    return _decode(io.BytesIO(content), len(content), where)


def _decode(source: Path | io.BytesIO, size: int, where: str) -> Waveform:
    if size == 0:
        raise BadAudio("audio empty", f"{where} has 0 bytes; replace or remove it.")
    try:
        with soundfile.SoundFile(source) as file:
            frames, rate = file.frames, file.samplerate
            samples_tc = file.read(frames, dtype="float32", always_2d=True)
            cut = is_cut_short(file, _head(source))
            wrong = contradiction(file, size, SHORTEST_SECONDS)
    except (soundfile.SoundFileError, OSError, ValueError, MemoryError) as error:
        raise _unreadable(where, error) from None
    if cut or len(samples_tc) != frames:
        raise BadAudio("audio cut short", f"{where} is shorter than its header says; copy it again.")
    if wrong:
        raise BadAudio("audio header wrong", f"the header of {where} is wrong: {wrong}; copy or convert it again.")
    return Waveform(samples_tc.mean(axis=1), rate)


def _head(source: Path | io.BytesIO) -> bytes:
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:1024]
    with source.open("rb") as raw:
        return raw.read(1024)


def _unreadable(where: str, error: Exception) -> BadAudio:
    why = " ".join(str(error).split()).rstrip(".")
    return BadAudio("audio unreadable", f"cannot read {where} ({why}); convert it to WAV or FLAC.")


def usable(waveform: Waveform, where: str) -> tuple[Waveform, bool]:
    """Refuse what is no speech at all; scale down what exceeds full scale.

    Args:
        waveform: mono samples.
        where: how messages name it.

    Returns:
        The waveform as float32 in [-1, 1], and whether it had to be scaled down.

    Raises:
        BadAudio: no samples, a value that is not finite, less than `SHORTEST_SECONDS`, or silence: beside clicks,
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
    heard = np.count_nonzero(np.abs(scaled - np.median(scaled)) >= SILENT_PEAK)
    if heard < _CLICK_SECONDS * waveform.rate:
        what = "silent" if heard == 0 else f"silent but for {heard} samples"
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
