import numpy as np
import pytest
import soundfile

from aer_jax.corpora.base import Waveform
from aer_jax.data.audio.read import SAMPLE_RATE, BadAudio, decode_flac, encode_flac, read_audio, to_16k, usable
from aer_jax.errors import UserError

NOISE = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)


def test_channels_are_averaged(tmp_path):
    left, right = NOISE, NOISE[::-1] * 0.5
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    waveform = read_audio(tmp_path / "a.wav")
    assert waveform.rate == 8000 and waveform.samples.dtype == np.float32
    np.testing.assert_allclose(waveform.samples, (left + right) / 2, atol=1e-7)


def bad_files(folder):
    soundfile.write(folder / "good.wav", NOISE, 8000)
    whole = (folder / "good.wav").read_bytes()
    soundfile.write(folder / "good.flac", NOISE, 8000)
    flac = (folder / "good.flac").read_bytes()
    nan, infinite = NOISE.copy(), NOISE.copy()
    nan[5], infinite[5] = np.nan, np.inf
    soundfile.write(folder / "silent.wav", NOISE * (9e-5 / np.abs(NOISE).max()), 8000, subtype="FLOAT")
    soundfile.write(folder / "zeros.wav", np.zeros(8000), 8000)
    soundfile.write(folder / "nan.wav", nan, 8000, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", infinite, 8000, subtype="FLOAT")
    soundfile.write(folder / "no_samples.wav", NOISE[:0], 8000)
    soundfile.write(folder / "blip.wav", NOISE[:700], 8000)
    (folder / "no_bytes.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not sound")
    (folder / "header.wav").write_bytes(whole[:30])
    (folder / "half.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "half.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "folder.wav").mkdir()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.wav", "audio file missing"),
        ("folder.wav", "audio file missing"),
        ("x" * 300 + ".wav", "audio unreadable"),
        ("nul\0.wav", "audio file missing"),
        ("no_bytes.wav", "audio empty"),
        ("no_samples.wav", "audio empty"),
        ("silent.wav", "audio silent"),
        ("zeros.wav", "audio silent"),
        ("nan.wav", "audio not finite"),
        ("inf.wav", "audio not finite"),
        ("blip.wav", "audio too short"),
        ("text.wav", "audio unreadable"),
        ("header.wav", "audio unreadable"),
        ("half.wav", "audio cut short"),
        ("half.flac", "audio unreadable"),
    ],
)
def test_bad_audio_says_why_and_where(tmp_path, name, reason):
    bad_files(tmp_path)
    with pytest.raises(BadAudio) as error:
        read_audio(tmp_path / name)
    assert error.value.reason == reason
    assert isinstance(error.value, UserError) and name[:100] in str(error.value)


def test_a_stream_of_unknown_length_is_whole(tmp_path):
    """Tools that write WAV to a pipe cannot know the length and leave the largest number."""
    path = tmp_path / "piped.wav"
    soundfile.write(path, NOISE, 8000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path).samples) == len(NOISE)


def test_too_loud_is_scaled_not_clipped():
    loud = NOISE * (2 / np.abs(NOISE).max())
    waveform, scaled = usable(Waveform(loud, 8000), "clip")
    assert scaled
    np.testing.assert_allclose(waveform.samples, loud / 2, atol=1e-7)
    full = NOISE / np.abs(NOISE).max()
    waveform, scaled = usable(Waveform(full, 8000), "clip")
    assert not scaled and np.array_equal(waveform.samples, full)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100, 96_000])
def test_flac_keeps_every_16_bit_value(rate):
    every = np.random.default_rng(1).permutation(np.arange(-32768, 32768)).astype(np.int16)
    back = decode_flac(encode_flac(Waveform(every.astype(np.float32) / 32768, rate)))
    assert back.rate == rate and back.samples.dtype == np.float32
    assert np.array_equal(back.samples * 32768, every)


@pytest.mark.parametrize("rate", [100_001, 1_000_000])
def test_rates_that_flac_cannot_hold(rate):
    with pytest.raises(BadAudio, match=f"FLAC has no rate of {rate} Hz"):
        encode_flac(Waveform(np.tile(NOISE, 20), rate))


def test_flac_does_not_wrap_at_full_scale():
    back = decode_flac(encode_flac(Waveform(np.array([1.0, -1.0, 0.99999] * 100, np.float32), 8000)))
    np.testing.assert_allclose(back.samples, [1.0, -1.0, 1.0] * 100, atol=1 / 32768)


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100])
def test_resampling_keeps_a_tone(rate):
    """Against the sine itself: 440 Hz sampled at 16 kHz; tolerance 1e-3 away from the edges."""
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    ours = to_16k(Waveform(tone, rate))
    assert ours.dtype == np.float32 and abs(len(ours) - SAMPLE_RATE) <= 1
    expected = np.sin(2 * np.pi * 440 * np.arange(len(ours)) / SAMPLE_RATE)
    np.testing.assert_allclose(ours[500:-500], expected[500:-500], atol=1e-3)


def test_16k_is_left_alone():
    assert np.array_equal(to_16k(Waveform(NOISE, SAMPLE_RATE)), NOISE)
