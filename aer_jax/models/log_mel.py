"""Whisper's log-mel spectrogram on the device, so that hosts send waveforms only."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aer_jax.base.lengths import HOP, SAMPLE_RATE
from aer_jax.models.sharding import on_own_rows

N_FFT = 400


@functools.cache
def mel_filters(bins: int) -> np.ndarray:
    """Slaney-normalised mel filters [N_FFT // 2 + 1, bins] up to 8 kHz, from transformers."""
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(
        num_frequency_bins=N_FFT // 2 + 1,
        num_mel_filters=bins,
        min_frequency=0.0,
        max_frequency=SAMPLE_RATE / 2,
        sampling_rate=SAMPLE_RATE,
        norm="slaney",
        mel_scale="slaney",
    ).astype(np.float32)


def log_mel(audio_bs: jax.Array, bins: int) -> jax.Array:
    """Log-mel features as `WhisperFeatureExtractor` makes them.

    The clip must be followed by at least N_FFT / 2 zeros inside the window; then the frames that hold the clip equal
    those of the 30 s window.

    Args:
        audio_bs: float32 [batch, samples] at 16 kHz, zero padded; samples divide by HOP.
        bins: mel bands.

    Returns:
        float32 [batch, samples / HOP, bins].
    """
    frames = audio_bs.shape[1] // HOP
    padded_bs = jnp.pad(audio_bs.astype(jnp.float32), ((0, 0), (N_FFT // 2, N_FFT // 2)), mode="reflect")
    index_fn = np.arange(frames)[:, None] * HOP + np.arange(N_FFT)
    hann_n = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    spectrum_bfk = on_own_rows(jnp.fft.rfft, padded_bs[:, index_fn] * hann_n.astype(np.float32))
    power_bfk = jnp.square(spectrum_bfk.real) + jnp.square(spectrum_bfk.imag)
    mel_bfm = jnp.matmul(power_bfk, mel_filters(bins), precision="highest")
    log_bfm = jnp.log10(jnp.maximum(mel_bfm, 1e-10))
    return (jnp.maximum(log_bfm, log_bfm.max(axis=(1, 2), keepdims=True) - 8.0) + 4.0) / 4.0
