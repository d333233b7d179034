import errno
import json
import os

import numpy as np
import pytest
import soundfile

from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data import prepare as prepare_module
from aer_jax.data.prepare import prepare
from aer_jax.data.splits import assert_disjoint, draw_speakers, split_clips
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

RNG = np.random.default_rng(0)


def waveform(peak=0.5, rate=8000):
    samples = RNG.normal(0, 1, 4000).astype(np.float32)
    return Waveform(samples * (peak / np.abs(samples).max()), rate)


def clip(i, audio=None, votes="aab", speaker=None, split=None):
    id = f"utt{i:03d}"
    heard = tuple(Vote(id, label, rater=f"r{r}") for r, label in enumerate(votes))
    return Clip(id, speaker or f"s{i % 6}", waveform() if audio is None else audio, heard, f"text {i}", split)


def corpus(clips):
    return Corpus("little", ("a", "b", "c"), ("a", "b", "c"), list(clips))


def test_what_is_written(tmp_path):
    source = corpus([clip(i, votes="aabc"[: i % 3 + 2]) for i in range(30)])
    source.drop("row without a clip", "utt999")
    dataset = prepare(source, tmp_path / "made" / "here" / "out", ["b", "a"], seed=3)
    about = json.loads((dataset.path / "dataset.json").read_text())
    assert about["counts"] | {"dropped": 0} == {"found": 30, "kept": 30, "votes": 90, "speakers": 6, "dropped": 0}
    assert about["counts"]["dropped"] == {"row without a clip": 1}
    assert (about["format"], about["classes"], about["licensed"], about["settings"]["seed"]) == (
        1,
        ["b", "a"],
        False,
        3,
    )
    # Votes outside the classes are kept too.
    assert dataset.votes == [vote for c in source.clips for vote in c.votes]
    stored = json.loads((dataset.path / "splits.json").read_text())
    assert stored["seed"] == 3 and "seed 3" in stored["how"]
    for c in source.clips:
        u = dataset.utterances[c.id]
        assert (u.speaker, u.transcript, u.seconds) == (c.speaker, c.transcript, 0.5)
    assert [p.name for p in (tmp_path / "made" / "here").iterdir()] == ["out"]


def test_the_report(tmp_path):
    clips = [clip(0, votes="aaaa"), clip(1, votes="ab"), clip(2, votes="aabbbc"), clip(3, waveform(peak=2))]
    report = (prepare(corpus(clips), tmp_path / "out", ["a", "b"]).path / "report.md").read_text()
    for line in (
        "4 clips found, **4 kept**, 4 speakers, 15 votes",
        "| a | 9 | 64.3% | 2 |",  # 9 of the 14 votes inside; leads in clips 0 and 3
        "| b | 5 | 35.7% | 1 |",
        "| (tied) |  |  | 1 |",
        "Votes outside the classes, kept in `votes.jsonl` but not counted: c 1.",
        "| votes a clip, all labels | 3.8 | 2.0 |",
        # Entropies / log 2: 0, 1, H(2/5, 3/5) = 0.97095, 0.91830 for aab.
        "| ambiguity (entropy / log K, 0 to 1) | 0.722 | 0.000 | 0.689 |",
        "All votes of a clip agree in 25.0% of the clips.",
        "| train | 2 | 2 |",
        "1 clip(s) exceeded full scale and were scaled down, not clipped: utt003.",
        "Nothing.",
    ):
        assert line in report, line


def test_every_kind_of_bad_clip_is_counted_and_left_out(tmp_path):
    soundfile.write(tmp_path / "fine.flac", waveform().samples, 22_050)
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF of nothing")
    (tmp_path / "nothing.wav").write_bytes(b"")
    bad = {
        "audio file missing": clip(10, tmp_path / "gone.wav"),
        "audio unreadable": clip(11, tmp_path / "corrupt.wav"),
        "audio empty": clip(12, tmp_path / "nothing.wav"),
        "audio silent": clip(13, Waveform(np.zeros(4000, np.float32), 8000)),
        "audio not finite": clip(14, Waveform(np.full(4000, np.nan, np.float32), 8000)),
        "audio too short": clip(15, Waveform(waveform().samples[:100], 8000)),
        "audio rate unknown to FLAC": clip(18, Waveform(np.tile(waveform().samples, 10), 100_001)),
        "no vote": clip(16, votes=""),
        "no vote inside the classes": clip(17, votes="cc"),
    }
    good = [clip(i) for i in range(5)] + [clip(5, tmp_path / "fine.flac")]
    dataset = prepare(corpus([*bad.values(), *good]), tmp_path / "out", ["a", "b"])
    kept = [c.id for c in good]
    assert list(dataset.utterances) == kept
    assert {vote.utterance for vote in dataset.votes} == set(kept)
    assert sorted(id for ids in dataset.splits.values() for id in ids) == kept
    report = (dataset.path / "report.md").read_text()
    for reason, c in bad.items():
        assert f"| {reason} | 1 | {c.id} |" in report


def test_no_usable_clip_is_an_error(tmp_path):
    clips = [clip(0, tmp_path / "gone.wav"), clip(1, votes="")]
    with pytest.raises(
        UserError, match=r"no clip of the corpus little is usable \(no vote: 1; audio file missing: 1\)"
    ):
        prepare(corpus(clips), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_dataset_is_never_overwritten(tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    prepare(corpus([clip(i) for i in range(3)]), out)
    before = (out / "dataset.json").stat()
    with pytest.raises(UserError, match="holds a finished dataset already"):
        prepare(corpus([clip(i) for i in range(3)]), out)
    assert (out / "dataset.json").stat() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    for taken in ("mine", "file"):
        with pytest.raises(UserError, match="exists"):
            prepare(corpus([clip(i) for i in range(3)]), tmp_path / taken)
    with pytest.raises(UserError, match="cannot write the dataset"):
        prepare(corpus([clip(i) for i in range(3)]), tmp_path / "file" / "out")


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, values):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prepare_module, "_write_lines", full)
    with pytest.raises(UserError, match=r"the disk of .* is full"):
        prepare(corpus([clip(i) for i in range(3)]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_is_swept_up(tmp_path, monkeypatch):
    def killed(path, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_module, "_write_json", killed)
        prepare(corpus([clip(i) for i in range(3)]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "votes.jsonl").write_text("half")  # what kill -9 leaves
    prepare(corpus([clip(i) for i in range(3)]), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_classes_must_be_known(tmp_path):
    with pytest.raises(UserError, match='class "d"'):
        prepare(corpus([clip(0)]), tmp_path / "out", ["a", "d"])


def test_splits_are_by_speaker_and_seeded():
    clips = [clip(i, speaker=f"s{i % 20}") for i in range(200)]
    splits, _ = split_clips(clips, 0)
    speaker = {c.id: c.speaker for c in clips}
    parts = [{speaker[id] for id in splits[part]} for part in ("train", "validation", "test")]
    assert [len(p) for p in parts] == [13, 3, 4] and len(set.union(*parts)) == 20
    assert {k: set(v) for k, v in split_clips(clips[::-1], 0)[0].items()} == {k: set(v) for k, v in splits.items()}
    assert split_clips(clips, 1)[0] != splits


def test_the_seeded_draw_never_changes():
    """A dataset prepared elsewhere, or next year, must have the same test speakers."""
    parts = draw_speakers({f"s{i}" for i in range(8)}, 0)
    assert [s for s, part in parts.items() if part == "test"] == ["s2", "s4"]
    assert [s for s, part in parts.items() if part == "validation"] == ["s3"]


@pytest.mark.parametrize("n", range(3, 40))
def test_every_part_has_a_speaker(n):
    parts = list(draw_speakers({f"s{i}" for i in range(n)}, 5).values())
    assert len(parts) == n and {"train", "validation", "test"} == set(parts)
    assert parts.count("train") >= max(parts.count("validation"), parts.count("test"))


def test_two_speakers_are_too_few(tmp_path):
    with pytest.raises(UserError, match=r"2 speaker\(s\) cannot be divided"):
        prepare(corpus([clip(0), clip(1)]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_corpus_own_split_wins():
    given = ["train", "test", "validation", "train"]
    clips = [clip(i, split=part) for i, part in enumerate(given)]
    splits, how = split_clips(clips, 0)
    assert splits == {"train": ["utt000", "utt003"], "validation": ["utt002"], "test": ["utt001"]}
    assert how == "as the corpus says"


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([clip(0, split="train"), clip(1)], r"split for 1 of 2 clips \(utt001 has none\)"),
        ([clip(0, split="train"), clip(1, split="test")], "no usable clip for validation"),
        (
            [clip(0, split="train"), clip(1, split="validation"), clip(2, split="test", speaker="s0")],
            "speaker s0 into both train and test",
        ),
    ],
)
def test_a_bad_split_is_refused(clips, message):
    with pytest.raises(UserError, match=message):
        split_clips(clips, 0)


def test_disjoint_means_utterances_too():
    with pytest.raises(UserError, match="names u twice"):
        assert_disjoint({"train": ["u", "u"]}, {"u": "s"}, "x")
    with pytest.raises(UserError, match="names v but the dataset has no such utterance"):
        assert_disjoint({"train": ["u", "v"]}, {"u": "s"}, "x")
