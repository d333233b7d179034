"""Online augmentation of a training clip: random pitch shift or time stretch.

What is done to which clip is drawn before its audio is read, so that a batch knows how long its clips will be.
"""

from __future__ import annotations

import numpy as np

from aer_jax.data.stretch import pitch_shift, time_stretch

SEMITONES = 1.0
SLOWEST, FASTEST = 0.95, 1.05


def draw(
    samples_n: np.ndarray, longest: int, probability: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one of three with `probability` for each clip: pitch + U(-1, 1) semitones, tempo x U(0.95, 1.05), unchanged.

    Args:
        samples_n: lengths of the clips.
        longest: no clip is slowed down beyond this length, so that none needs a window of its own or loses its end.
        probability: that anything is tried at all, 0 to 1.
        rng: every choice comes from it.

    Returns:
        semitones and tempo of each clip, float64 [n]; 0 and 1 where they stay.
    """
    n = len(samples_n)
    tried_n, way_n = rng.random(n) < probability, rng.integers(3, size=n)
    semitones_n = rng.uniform(-SEMITONES, SEMITONES, n)
    tempo_n = rng.uniform(np.maximum(SLOWEST, samples_n / longest), FASTEST)
    return np.where(tried_n & (way_n == 0), semitones_n, 0.0), np.where(tried_n & (way_n == 1), tempo_n, 1.0)


def augment(audio_t: np.ndarray, semitones: float, tempo: float) -> np.ndarray:
    """Apply a draw to a clip, float32 [samples] at 16 kHz; `stretched(samples, tempo)` long."""
    if semitones != 0:
        audio_t = pitch_shift(audio_t, semitones)
    if tempo != 1:
        audio_t = time_stretch(audio_t, tempo)
    return audio_t


def stretched(samples, tempo):
    """Samples of a clip after `augment`; for numbers and for arrays."""
    return np.rint(samples / tempo).astype(np.int64)
