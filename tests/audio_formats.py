"""The same voice in the formats that phones, browsers and recorders write, by PyAV's and libsndfile's encoders."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 16_000
SECONDS = 3.0


@cache
def voice() -> np.ndarray:
    """float32 [samples]: a buzz in syllables that never repeats, peak 0.6."""
    rng = np.random.default_rng(0)
    t = np.arange(int(SECONDS * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * k * (120 * t + 4 * np.sin(2 * np.pi * 0.3 * t)) + k) / k for k in range(1, 15))
    x = buzz * np.abs(np.sin(2 * np.pi * 2.3 * t)) + rng.normal(0, 0.05, len(t))
    return (0.6 * x / np.abs(x).max()).astype(np.float32)


# name -> container, codec, rate, options of the container; "+video" writes a picture too.
_BY_FFMPEG = {
    "mp3": ("mp3", "libmp3lame", 16_000, {}),
    "mp3 without index": ("mp3", "libmp3lame", 44_100, {"write_xing": "0", "id3v2_version": "0"}),
    "m4a": ("ipod", "aac", 44_100, {}),
    "fragmented mp4": ("mp4", "aac", 44_100, {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"}),
    "alac": ("ipod", "alac", 16_000, {}),
    "mp4+video": ("mp4", "aac", 44_100, {}),
    "mov": ("mov", "pcm_s16le", 16_000, {}),
    "3gp": ("3gp", "libopencore_amrnb", 8000, {}),
    "amr": ("amr", "libopencore_amrnb", 8000, {}),
    "aac": ("adts", "aac", 44_100, {}),
    "webm": ("webm", "libopus", 48_000, {}),
    "live webm": ("webm", "libopus", 48_000, {"live": "1"}),
    "mkv+video": ("matroska", "aac", 44_100, {}),
    "ogg opus": ("ogg", "libopus", 48_000, {}),
    "ogg flac": ("ogg", "flac", 16_000, {}),
    "wma": ("asf", "wmav2", 44_100, {}),
    "avi": ("avi", "libmp3lame", 44_100, {}),
    "mp3 in wav": ("wav", "libmp3lame", 44_100, {}),
    "flac": ("flac", "flac", 16_000, {}),
}
_BY_LIBSNDFILE = {
    "wav": ("WAV", "PCM_16"), "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"), "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"), "rf64": ("RF64", "PCM_16"), "nist": ("NIST", "PCM_16"), "ogg vorbis": ("OGG", "VORBIS"),
}  # fmt: skip
NAMES = [*_BY_FFMPEG, *_BY_LIBSNDFILE]
EXACT = {"alac", "mov", "ogg flac", "flac", "wav", "aiff", "au", "caf", "w64", "rf64", "nist"}
_BIT_RATES = {"amr": "12200", "3gp": "12200", "mp3": "32000"}


@cache
def encoded(name: str) -> bytes:
    """The voice as a file of this format."""
    if name in _BY_LIBSNDFILE:
        kind, subtype = _BY_LIBSNDFILE[name]
        buffer = io.BytesIO()
        soundfile.write(buffer, pcm16(), RATE, format=kind, subtype=subtype)
        return buffer.getvalue()
    container, codec, rate, options = _BY_FFMPEG[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        with av.open(str(path), "w", format=container, options=options) as out:
            video = None
            if name.endswith("+video"):
                video = out.add_stream("mpeg4", rate=10)
                video.width = video.height = 32
                video.pix_fmt = "yuv420p"
            stream = out.add_stream(codec, rate=rate, layout="mono")
            stream.bit_rate = int(_BIT_RATES.get(name, "64000"))
            stream.codec_context.open()
            if video:
                for i in range(int(10 * SECONDS)):
                    picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, np.uint8), format="rgb24")
                    picture.pts = i
                    out.mux(video.encode(picture))
                out.mux(video.encode())
            encode(out, stream, rate)
        return path.read_bytes()


def encode(out: av.container.OutputContainer, stream: av.AudioStream, rate: int) -> None:
    codec = stream.codec_context
    to_codec = av.AudioResampler(format=codec.format, layout="mono", rate=rate, frame_size=codec.frame_size or 1024)
    whole = av.AudioFrame.from_ndarray(pcm16()[None], format="s16", layout="mono")
    whole.sample_rate, whole.pts = RATE, 0
    for frame in [*to_codec.resample(whole), *to_codec.resample(None)]:
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def pcm16() -> np.ndarray:
    """int16, as libsndfile rounds."""
    return np.rint(voice() * 32767).astype(np.int16)
