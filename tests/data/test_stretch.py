"""Tempo and pitch against librosa's own, computed in float64, where its sums of angles are exact enough."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aer_jax.data.stretch import phase_vocoder, pitch_shift, time_stretch


def speechlike(samples=24_000, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    voice = np.sin(2 * np.pi * 140 * (t + 0.1 * t**2)) ** 5 * (1 + np.sin(9 * t))
    return (0.2 * voice + 0.01 * rng.normal(size=samples)).astype(np.float32)


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("rate", [0.95, 0.9999, 1.0001, 1.03, 1.05, 0.5, 2.0, 3.7])
def test_tempo_is_librosas(rate):
    audio_t = speechlike()
    exact_t = librosa.effects.time_stretch(audio_t.astype(np.float64), rate=rate)
    ours_t = time_stretch(audio_t, rate)
    assert ours_t.dtype == np.float32
    assert relative(ours_t, exact_t) < 2e-6
    assert relative(time_stretch(audio_t.astype(np.float64), rate), exact_t) < 1e-10
    # librosa's own float32 is further from what it computes in float64.
    assert relative(ours_t, exact_t) < relative(librosa.effects.time_stretch(audio_t, rate=rate), exact_t)


@pytest.mark.parametrize("semitones", [-1.0, -0.01, 0.3, 1.0, 7.0])
def test_pitch_is_librosas(semitones):
    audio_t = speechlike(seed=1)
    exact_t = librosa.effects.pitch_shift(audio_t.astype(np.float64), sr=16_000, n_steps=semitones)
    ours_t = pitch_shift(audio_t, semitones)
    assert ours_t.dtype == np.float32
    assert relative(ours_t, exact_t) < 2e-6


@settings(max_examples=60)
@given(st.integers(1, 40), st.floats(0.4, 3.0), st.integers(0, 2**31))
def test_the_vocoder_is_librosas_for_any_spectrogram_and_pace(frames, rate, seed):
    rng = np.random.default_rng(seed)
    stft_fk = rng.normal(size=(frames, 33)) + 1j * rng.normal(size=(frames, 33))
    stft_fk[rng.random(stft_fk.shape) < 0.2] = 0  # bins without sound, which have no phase
    theirs_tk = librosa.phase_vocoder(stft_fk.T, rate=rate).T
    np.testing.assert_allclose(phase_vocoder(stft_fk, rate), theirs_tk, atol=1e-9)


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize("samples", [1, 700, 2_047, 2_048])
def test_short_clips_and_silence(samples):
    for audio_t in (speechlike(samples), np.zeros(samples, np.float32)):
        exact_t = librosa.effects.time_stretch(audio_t.astype(np.float64), rate=0.97)
        np.testing.assert_allclose(time_stretch(audio_t, 0.97), exact_t, atol=1e-6)
        exact_t = librosa.effects.pitch_shift(audio_t.astype(np.float64), sr=16_000, n_steps=-0.5)
        np.testing.assert_allclose(pitch_shift(audio_t, -0.5), exact_t, atol=1e-6)
