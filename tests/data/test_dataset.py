import json
import pickle

import numpy as np
import pytest

from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data.audio import to_16k
from aer_jax.data.dataset import open_dataset
from aer_jax.data.prepare import prepare
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

RATES = (8000, 16_000, 44_100)


@pytest.fixture
def made(tmp_path):
    """Three clips of three speakers at three rates, and what was put in, on the 16-bit grid."""
    rng = np.random.default_rng(0)
    clips = [
        Clip(
            f"u{i}",
            f"s{i}",
            Waveform((rng.integers(-9000, 9000, rate // 2) / 32768).astype(np.float32), rate),
            (Vote(f"u{i}", "glad", "r1"), Vote(f"u{i}", "sad", "r2", 0.5)),
            "Grüße",
        )
        for i, rate in enumerate(RATES)
    ]
    return prepare(Corpus("little", ("glad", "sad"), ("glad", "sad"), clips, licensed=True), tmp_path / "d"), clips


def test_opened_as_prepared(made):
    dataset, clips = made
    assert (dataset.name, dataset.classes, dataset.licensed) == ("little", ("glad", "sad"), True)
    assert list(dataset.utterances) == ["u0", "u1", "u2"]
    assert dataset.utterances["u1"].transcript == "Grüße"
    assert dataset.votes == [vote for clip in clips for vote in clip.votes]
    assert sorted(dataset.splits) == ["test", "train", "validation"]


def test_audio_is_what_went_in_at_16k(made):
    dataset, clips = made
    again = pickle.loads(pickle.dumps(dataset))
    for clip in clips:
        audio = dataset.audio(clip.id)
        assert audio.dtype == np.float32 and abs(len(audio) - 8000) <= 1
        assert np.array_equal(audio, to_16k(clip.audio))
        assert np.array_equal(audio, again.audio(clip.id))
    with pytest.raises(UserError, match="has no utterance u9"):
        dataset.audio("u9")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_no_dataset_is_said(made, tmp_path):
    dataset, _ = made
    with pytest.raises(UserError, match=r"is not a dataset \(it has no dataset.json\)"):
        open_dataset(tmp_path)
    edit(dataset.path / "dataset.json", format=2)
    with pytest.raises(UserError, match=r"has dataset format 2, this version reads 1"):
        open_dataset(dataset.path)
    (dataset.path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*dataset.json"):
        open_dataset(dataset.path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("votes.jsonl", '{"utterance"', "votes.jsonl, line 1 is not JSON"),
        ("votes.jsonl", "{}", "is damaged"),
        ("utterances.jsonl", '{"id": "u0"}', "is damaged"),
        ("utterances.jsonl", "[1]", "is damaged"),
        ("splits.json", '{"train": []}', "is damaged"),
        ("splits.json", "[]", "does not hold a JSON object"),
    ],
)
def test_damage_is_one_sentence(made, file, text, message):
    dataset, _ = made
    (dataset.path / file).write_text(text + "\n")
    with pytest.raises(UserError, match=message):
        open_dataset(dataset.path)


def test_shared_speakers_are_refused_on_reading(made):
    dataset, _ = made
    lines = (dataset.path / "utterances.jsonl").read_text().replace('"s1"', '"s0"')
    (dataset.path / "utterances.jsonl").write_text(lines)
    with pytest.raises(UserError, match="speaker s0 into both"):
        open_dataset(dataset.path)


def test_a_swapped_record_is_noticed(made):
    dataset, _ = made
    lines = (dataset.path / "utterances.jsonl").read_text()
    (dataset.path / "utterances.jsonl").write_text(lines.replace('"row": 0', '"row": 1'))
    with pytest.raises(UserError, match="holds u1 where u0 should be"):
        open_dataset(dataset.path).audio("u0")
