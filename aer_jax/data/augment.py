"""Online augmentation of a training clip: a little higher or lower, a little faster or slower."""

from __future__ import annotations

import librosa
import numpy as np

from aer_jax.lengths import SAMPLE_RATE

SEMITONES = 1.0
SLOWEST, FASTEST = 0.95, 1.05


def augment(audio_t: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """With `probability` one of three: pitch + U(-1, 1) semitones, tempo x U(0.95, 1.05), as it is.

    Args:
        audio_t: float32 [samples] at 16 kHz.
        probability: that anything is tried at all, 0 to 1.
        rng: every choice comes from it.

    Returns:
        float32 [samples']; samples' is at most `longest(samples, probability)`.
    """
    if rng.random() >= probability:
        return audio_t
    way = rng.integers(3)
    if way == 0:
        steps = rng.uniform(-SEMITONES, SEMITONES)
        return librosa.effects.pitch_shift(audio_t, sr=SAMPLE_RATE, n_steps=steps).astype(np.float32)
    if way == 1:
        rate = rng.uniform(SLOWEST, FASTEST)
        return librosa.effects.time_stretch(audio_t, rate=rate).astype(np.float32)
    return audio_t


def longest(samples: int, probability: float) -> int:
    """The most samples that a clip can have after `augment`."""
    return samples if probability == 0 else round(samples / SLOWEST) + 1
