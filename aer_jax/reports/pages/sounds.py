"""Clips in a page: playable audio, and a picture of waveform and log-mel spectrogram."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import librosa
import matplotlib.image
import numpy as np
import soundfile
from markupsafe import Markup, escape

from aer_jax.base.lengths import HOP, SAMPLE_RATE
from aer_jax.corpora.base import Waveform
from aer_jax.data.audio.read import encode_flac

_BANDS, _DECIBELS = 80, 70
_WIDTH, _WAVE, _MEL = 600, 60, 130  # of the picture, in units of its own


class Scale(NamedTuple):
    """Common scale of pictures side by side: samples across the width, peak across the height."""

    samples: int
    peak: float

    @classmethod
    def of(cls, *clips: np.ndarray) -> Scale:
        """The longest and the loudest of some clips."""
        return cls(max(map(len, clips)), max(float(np.abs(audio_t).max()) for audio_t in clips) or 1.0)


def playable(audio_t: np.ndarray) -> str:
    """A data URI of the clip at 16 kHz as FLAC, 16 bits, which every current browser plays."""
    return _uri("audio/flac", encode_flac(Waveform(audio_t, SAMPLE_RATE)))


def compressed(audio_t: np.ndarray) -> str:
    """The same as MP3, a fifth as long; FLAC where this libsndfile writes no MP3."""
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, audio_t, SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.7)
    except (soundfile.SoundFileError, ValueError):
        return playable(audio_t)
    return _uri("audio/mpeg", buffer.getvalue())


def picture(audio_t: np.ndarray, scale: Scale, label: str, mark: int | None = None) -> Markup:
    """Waveform above log-mel spectrogram as inline SVG.

    Args:
        audio_t: float32 [samples] at 16 kHz.
        scale: of the pictures next to it.
        label: what it shows, for those who do not see it.
        mark: a dashed line at this sample.
    """
    width = _WIDTH * len(audio_t) / scale.samples
    mel_fm = librosa.feature.melspectrogram(y=audio_t, sr=SAMPLE_RATE, n_fft=400, hop_length=HOP, n_mels=_BANDS)
    decibels_fm = librosa.power_to_db(mel_fm, ref=np.max, top_db=_DECIBELS)
    png = io.BytesIO()
    matplotlib.image.imsave(png, decibels_fm, vmin=-_DECIBELS, vmax=0, cmap="magma", origin="lower", format="png")
    line = f'<line x1="{(x := _WIDTH * mark / scale.samples):.1f}" x2="{x:.1f}" y2="{_WAVE + _MEL}"/>' if mark else ""
    return Markup(
        f'<svg class="sound" role="img" aria-label="{escape(label)}" viewBox="0 0 {_WIDTH} {_WAVE + _MEL}">'
        f'<path d="{_outline(audio_t / scale.peak, width)}"/>'
        f'<image y="{_WAVE}" width="{width:.1f}" height="{_MEL}" preserveAspectRatio="none" '
        f'href="{_uri("image/png", png.getvalue())}"/>{line}</svg>'
    )


def _outline(audio_t: np.ndarray, width: float) -> str:
    parts = np.array_split(audio_t, max(1, min(round(width), len(audio_t))))
    x_p = np.linspace(0, width, len(parts))
    middle = _WAVE / 2
    above = [f"{x:.1f},{middle * (1 - part.max()):.1f}" for x, part in zip(x_p, parts, strict=True)]
    below = [f"{x:.1f},{middle * (1 - part.min()):.1f}" for x, part in zip(x_p, parts, strict=True)]
    return f"M{'L'.join([*above, *below[::-1]])}Z"


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
