"""Segments of long recordings in a dataset."""

import re

import numpy as np
import pytest
import soundfile

from aer_jax.corpora.base import Clip, Corpus
from aer_jax.data.audio.read import decode_flac
from aer_jax.data.preparation import shards
from aer_jax.data.preparation.prepare import prepare
from aer_jax.labels.votes import Vote

RATE = 11_025


def corpus(path, *times):
    clips = [
        Clip(f"c{i}", f"s{i}", path, (Vote(f"c{i}", "ab"[i % 2]),), start=start, end=end, where=f"m.csv, line {i + 2}")
        for i, (start, end) in enumerate(times)
    ]
    return Corpus("manifest", ("a", "b"), ("a", "b"), clips)


@pytest.fixture
def recording(tmp_path):
    samples = np.random.default_rng(0).integers(-9000, 9000, 4 * RATE).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", samples, RATE, subtype="PCM_16")
    return tmp_path / "long.wav", samples


def stored(dataset):
    records = {id: dataset._records.read(u.shard, u.row) for id, u in dataset.utterances.items()}
    return {id: np.rint(decode_flac(record.flac).samples * 32768).astype(np.int16) for id, record in records.items()}


def test_segments_are_cut_to_the_sample_and_decoded_once(tmp_path, recording, monkeypatch):
    path, samples = recording
    decoded = []
    decode = shards.decode
    monkeypatch.setattr(shards, "decode", lambda path: decoded.append(path) or decode(path))
    times = [(0.5, 1.25), (1.25, 2.0), (0.123_456, 1.0), (3.0, None), (None, 0.2), (3.5, 4.03)]
    dataset = prepare(corpus(path, *times), tmp_path / "out")
    assert decoded == [path]
    found = stored(dataset)
    ends = [(5512, 13781), (13781, 22050), (1361, 11025), (33075, 44100), (0, 2205), (38588, 44100)]
    for i, (first, last) in enumerate(ends):
        assert np.array_equal(found[f"c{i}"], samples[first:last]), i


def test_segments_past_the_end_are_left_out_and_counted(tmp_path, recording):
    """Where only decoding tells how long a recording is."""
    path, _ = recording
    dataset = prepare(corpus(path, (0, 1), (1, 2), (2, 3), (3, 4.2), (5, None)), tmp_path / "out")
    assert list(dataset.utterances) == ["c0", "c1", "c2"]
    assert "| segment past the end of its recording | 2 | c3; c4 |" in re.sub(
        " +", " ", (dataset.path / "report.md").read_text()
    )


def test_a_long_recording_does_not_make_a_shard_of_each_segment(tmp_path, recording, monkeypatch):
    path, _ = recording
    monkeypatch.setattr(shards, "SHARD_BYTES", path.stat().st_size)
    prepare(corpus(path, *((i / 10, i / 10 + 0.2) for i in range(12))), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.array_record"))) == 1


def test_other_times_are_another_shard(tmp_path, recording):
    path, _ = recording
    keys = {key for end in (1.0, 1.5, None) for _, key in shards._cut(corpus(path, (0.0, end)).clips)}
    assert len(keys) == 3
