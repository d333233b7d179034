"""Online augmentation: what is drawn, how often, and how long the result can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aer_jax.data.augment import augment, draw, stretched

TONE = (0.3 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000)).astype(np.float32)


def tone_hz(audio_t):
    """Frequency of the strongest bin of one long transform."""
    spectrum = np.abs(np.fft.rfft(audio_t * np.hanning(len(audio_t)), 2**18))
    return spectrum.argmax() * 16_000 / 2**18


def test_probability_zero_changes_nothing():
    semitones_n, tempo_n = draw(np.full(50, 16_000), 20_000, 0.0, np.random.default_rng(0))
    assert not semitones_n.any() and (tempo_n == 1).all()
    assert augment(TONE, 0.0, 1.0) is TONE


def test_pitch_tempo_and_nothing_are_drawn_alike_and_within_their_ranges():
    n = 30_000
    semitones_n, tempo_n = draw(np.full(n, 16_000), 20_000, 0.3, np.random.default_rng(0))
    pitched_n, stretched_n = semitones_n != 0, tempo_n != 1
    assert not (pitched_n & stretched_n).any()
    # Binomial(n, .1) each: standard deviation 52; four of them.
    assert abs(pitched_n.sum() - n / 10) < 208 and abs(stretched_n.sum() - n / 10) < 208
    assert stats.kstest(semitones_n[pitched_n], stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert stats.kstest(tempo_n[stretched_n], stats.uniform(0.95, 0.1).cdf).pvalue > 0.01


def test_the_generator_decides_everything():
    a, b = (draw(np.full(99, 16_000), 20_000, 0.5, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("semitones", [-1.0, 0.5])
def test_pitch_moves_the_tone_and_not_the_length(semitones):
    out = augment(TONE, semitones, 1.0)
    assert out.dtype == np.float32 and len(out) == len(TONE)
    assert 12 * np.log2(tone_hz(out) / 220) == pytest.approx(semitones, abs=0.1)


@pytest.mark.parametrize("tempo", [0.95, 1.05])
def test_tempo_moves_the_length_and_not_the_tone(tempo):
    out = augment(TONE, 0.0, tempo)
    assert out.dtype == np.float32 and len(out) == stretched(len(TONE), tempo) == round(16_000 / tempo)
    assert tone_hz(out) == pytest.approx(220, rel=0.01)


@pytest.mark.filterwarnings("ignore:n_fft")
@settings(max_examples=25)
@given(st.integers(1, 6_000), st.floats(0.95, 1.05))
def test_the_length_is_known_before_the_audio_is(samples, tempo):
    audio_t = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    assert len(augment(audio_t, 0.0, tempo)) == stretched(samples, tempo)


@given(st.lists(st.integers(1_600, 480_000), min_size=1, max_size=200), st.integers(0, 2**31))
def test_no_clip_outgrows_the_longest(samples, seed):
    samples_n = np.array(samples)
    semitones_n, tempo_n = draw(samples_n, samples_n.max(), 1.0, np.random.default_rng(seed))
    assert stretched(samples_n, tempo_n).max() <= samples_n.max()
    assert np.abs(semitones_n).max() <= 1 and tempo_n.min() >= 0.95 and tempo_n.max() <= 1.05
