"""DiME-Aug's features against librosa called one by one, and their cache."""

from __future__ import annotations

import dataclasses
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from aer_jax.data import dime_features
from aer_jax.data.dime_features import CACHE, features, utterance_features


def speechlike(seed, samples=24_000):
    """A gliding tone with noise: every feature moves."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    phase = 2 * np.pi * (120 + 40 * seed) * (t + 0.2 * t**2)
    audio = 0.3 * np.sin(phase) * (1 + np.sin(9 * t)) + 0.02 * rng.normal(size=samples)
    return audio.astype(np.float32)


def named_features(y, text):
    """The same 82 numbers under their names, each by its own librosa call."""
    sr, out = 16_000, {}
    mfcc = librosa.feature.mfcc(y=y, sr=sr, n_mfcc=13, n_fft=2048, hop_length=512)
    for i in range(13):
        out[f"mfcc{i}_mean"] = np.mean(mfcc[i].astype(np.float64))
    for i in range(13):
        out[f"mfcc{i}_std"] = np.std(mfcc[i].astype(np.float64))
    power = np.abs(librosa.stft(y, n_fft=2048, hop_length=512)) ** 2
    chroma = librosa.feature.chroma_stft(S=power, sr=sr)
    out |= {f"chroma{i}_mean": chroma[i].mean() for i in range(12)}
    out |= {f"chroma{i}_std": chroma[i].std() for i in range(12)}
    contrast = librosa.feature.spectral_contrast(S=np.sqrt(power), sr=sr)
    out |= {f"contrast{i}_mean": contrast[i].mean() for i in range(7)}
    out |= {f"contrast{i}_std": contrast[i].std() for i in range(7)}
    for name, curve in {
        "zcr": librosa.feature.zero_crossing_rate(y, frame_length=2048, hop_length=512)[0],
        "rolloff": librosa.feature.spectral_rolloff(S=np.sqrt(power), sr=sr, roll_percent=0.85)[0],
        "centroid": librosa.feature.spectral_centroid(S=np.sqrt(power), sr=sr)[0],
        "rms": librosa.feature.rms(y=y, frame_length=2048, hop_length=512)[0],
    }.items():
        out[f"{name}_mean"], out[f"{name}_std"] = curve.mean(), curve.std()
    assert len(out) == 72
    out["characters"] = len(text)
    return out


def test_sound_features_are_librosas():
    y = speechlike(1)
    want = named_features(y, "")
    got = utterance_features(y, "")
    assert got.shape == (82,) and got.dtype == np.float64
    for i, (name, value) in enumerate(want.items()):
        # float32 inside librosa; the power spectrum is squared and rooted again here.
        assert got[i] == pytest.approx(value, rel=2e-4, abs=1e-5), name


def test_sound_features_are_those_of_calls_with_the_waveform_bit_for_bit():
    """One transform is shared by all; librosa given the waveform makes one for each."""
    y, sr = speechlike(3), 16_000
    curves = [
        librosa.feature.mfcc(y=y, sr=sr, n_mfcc=13),
        librosa.feature.chroma_stft(y=y, sr=sr),
        librosa.feature.spectral_contrast(y=y, sr=sr),
        librosa.feature.zero_crossing_rate(y),
        librosa.feature.spectral_rolloff(y=y, sr=sr),
        librosa.feature.spectral_centroid(y=y, sr=sr),
        librosa.feature.rms(y=y),
    ]
    want = [f(c, axis=1, dtype=float) for c in curves for f in (np.mean, np.std)]
    np.testing.assert_array_equal(utterance_features(y, "")[:72], np.concatenate(want))


def test_text_features_by_hand():
    got = utterance_features(speechlike(1), "Oh no, NOT again!! Why?")[72:]
    # 23 characters, 5 words; Oh no, NOT again!! Why?
    # vowels O o O a a i = 6; letters Oh no NOT again Why = 15; upper-case O N O T W = 5
    # mean word length (2 + 3 + 3 + 7 + 4) / 5
    want = [23, 5, 2, 1, 0, 1, 6 / 23, 9 / 23, 19 / 5, 5 / 23]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_array_equal(utterance_features(speechlike(1), "")[72:], np.zeros(10))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("audio", [np.ones(1), np.zeros(700), np.full(1_600, 0.5), speechlike(2, 2_047)])
def test_short_and_toneless_clips_have_features(audio):
    assert np.isfinite(utterance_features(audio.astype(np.float32), "a b")).all()


@dataclass(frozen=True)
class Clips:
    """A dataset that notes which audio is read; `make` puts one into a directory."""

    path: Path
    utterances: dict
    votes: list
    splits: dict
    reads: list = field(default_factory=list)

    def audio(self, id):
        self.reads.append(id)
        return speechlike(int(id[1:]), 4_000)


def make(path, n, about="{}"):
    (path / "dataset.json").write_text(about)
    return Clips(path, {f"u{i}": SimpleNamespace(transcript=f"Word {i}.") for i in range(n)}, [], {})


@pytest.fixture(autouse=True)
def users_cache(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    return place


def test_features_are_kept_and_only_missing_ones_computed(tmp_path, caplog):
    clips = make(tmp_path, 6)
    first = features(clips, ["u3", "u0", "u3"])
    assert clips.reads == ["u3", "u0"] and first.shape == (3, 82)
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], utterance_features(speechlike(0, 4_000), "Word 0."))
    again = features(clips, ["u0", "u5", "u3"])
    assert clips.reads == ["u3", "u0", "u5"]
    np.testing.assert_array_equal(again[[2, 0]], first[:2])
    assert load_file(tmp_path / CACHE)["features"].shape == (3, 82)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", CACHE]
    assert features(clips, []).shape == (0, 82)
    assert not caplog.records


@pytest.mark.parametrize("broken", ["garbage", "version", "shape", "no metadata", "empty", "dataset", "bit"])
def test_a_cache_that_does_not_fit_is_computed_again_and_said(tmp_path, caplog, broken):
    clips = make(tmp_path, 2)
    want = features(clips, ["u0", "u1"])
    path = tmp_path / CACHE
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()
    if broken == "garbage":
        path.write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    elif broken == "bit":
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif broken == "empty":
        path.write_bytes(b"")
    elif broken == "version":
        save_file({"features": want + 1}, path, metadata=about | {"version": "0"})
    elif broken == "shape":
        save_file({"features": want[:, :5].copy()}, path, metadata=about)
    elif broken == "dataset":  # the same ids, other audio
        save_file({"features": want + 1}, path, metadata=about)
        (tmp_path / "dataset.json").write_text('{"sha256": "other"}')
    else:
        save_file({"features": want + 1}, path)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(features(clips, ["u0", "u1"]), want)
    assert len(clips.reads) == 4 and "again" in caplog.text and len(caplog.records) == 1
    caplog.clear()
    features(clips, ["u0", "u1"])
    assert len(clips.reads) == 4 and not caplog.records


def test_what_another_run_added_meanwhile_is_kept(tmp_path, monkeypatch):
    clips = make(tmp_path, 3)
    compute = dime_features.utterance_features

    def as_another_run_ends(audio_t, transcript):
        monkeypatch.setattr(dime_features, "utterance_features", compute)
        features(clips, ["u1"])
        return compute(audio_t, transcript)

    monkeypatch.setattr(dime_features, "utterance_features", as_another_run_ends)
    features(clips, ["u0"])
    reads = len(clips.reads)
    features(clips, ["u0", "u1"])
    assert len(clips.reads) == reads


def test_a_killed_run_keeps_what_it_had(tmp_path, monkeypatch):
    monkeypatch.setattr(dime_features, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(dime_features, "CHUNK", 2)
    clips = make(tmp_path, 6)
    compute = dime_features.utterance_features

    def killed(audio_t, transcript):
        if transcript == "Word 5.":
            raise KeyboardInterrupt
        return compute(audio_t, transcript)

    monkeypatch.setattr(dime_features, "utterance_features", killed)
    with pytest.raises(KeyboardInterrupt):
        features(clips, list(clips.utterances))
    monkeypatch.setattr(dime_features, "utterance_features", compute)
    clips.reads.clear()
    features(clips, list(clips.utterances))
    assert clips.reads == ["u5"]


def test_a_dataset_that_cannot_be_written_has_its_cache_at_home(tmp_path, users_cache, monkeypatch, caplog):
    clips = make(tmp_path, 2)
    (tmp_path / f".{CACHE}.{os.getpid()}.partial").mkdir()  # refuses the file, also to root
    want = features(clips, ["u0", "u1"])
    assert not (tmp_path / CACHE).exists() and len(list((users_cache / "aer_jax").iterdir())) == 1
    np.testing.assert_array_equal(features(clips, ["u0", "u1"]), want)
    assert len(clips.reads) == 2 and not caplog.records
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    np.testing.assert_array_equal(features(clips, ["u0", "u1"]), want)
    assert len(clips.reads) == 4 and "not kept" in caplog.text


def test_many_clips_are_computed_by_several_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(dime_features, "SERIAL", 4)
    monkeypatch.setattr(dime_features, "CHUNK", 2)
    clips = make(tmp_path, 5)
    together = features(clips, list(clips.utterances))
    assert clips.reads == ["u0"], "the copies in the other processes read the others"
    alone = [utterance_features(speechlike(i, 4_000), f"Word {i}.") for i in range(5)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_another_process_is_sent_its_own_clips_alone(tmp_path):
    """Every vote of a large corpus, pickled for every few clips, would cost more than the features."""
    clips = dataclasses.replace(make(tmp_path, 9), votes=[object()] * 9, splits={"train": ["u1"]})
    part = dime_features._part(clips, ["u7", "u2"])
    assert list(part.utterances) == ["u7", "u2"] and not part.votes and not part.splits
