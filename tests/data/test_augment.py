"""Online augmentation: what is drawn, how often, and how long the result can be."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aer_jax.data.augment import augment, longest

TONE = (0.3 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000)).astype(np.float32)


def tone_hz(audio_t):
    """Frequency of the strongest bin of one long transform."""
    spectrum = np.abs(np.fft.rfft(audio_t * np.hanning(len(audio_t)), 2**18))
    return spectrum.argmax() * 16_000 / 2**18


def test_probability_zero_changes_nothing():
    rng = np.random.default_rng(0)
    assert all(augment(TONE, 0.0, rng) is TONE for _ in range(50))
    assert longest(12_345, 0.0) == 12_345


def test_pitch_tempo_and_nothing_are_drawn_alike_and_within_their_ranges():
    pitched = stretched = 0
    for seed in range(150):
        out = augment(TONE, 1.0, np.random.default_rng(seed))
        assert out.dtype == np.float32 and np.isfinite(out).all()
        if len(out) != len(TONE):
            stretched += 1
            assert 16_000 / 1.05 - 1 <= len(out) <= 16_000 / 0.95 + 1
            assert tone_hz(out) == pytest.approx(220, rel=0.01)  # tempo leaves pitch alone
        elif not np.array_equal(out, TONE):
            pitched += 1
            assert abs(12 * np.log2(tone_hz(out) / 220)) < 1.1
    # Binomial(150, 1/3): mean 50, standard deviation 5.8; four of them.
    assert abs(pitched - 50) < 23 and abs(stretched - 50) < 23


def test_the_probability_is_kept():
    changed = sum(augment(TONE, 0.3, np.random.default_rng(seed)) is not TONE for seed in range(300))
    # Two thirds of 30 % are changed: mean 60, standard deviation 6.9; four of them.
    assert abs(changed - 60) < 28


def test_the_generator_decides_everything():
    a, b = (augment(TONE, 1.0, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:n_fft")
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6_000), st.integers(0, 2**31))
def test_no_clip_outgrows_its_bound(samples, seed):
    audio_t = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    out = augment(audio_t, 1.0, np.random.default_rng(seed))
    assert 1 <= len(out) <= longest(samples, 1.0)
    assert len(librosa.effects.time_stretch(audio_t, rate=0.95)) <= longest(samples, 1.0)
