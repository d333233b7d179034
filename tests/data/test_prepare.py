import dataclasses
import errno
import fcntl
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from aer_jax import cli
from aer_jax.corpora.base import UNKNOWN_SPEAKER, Clip, Corpus, Waveform
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation import prepare as prepare_module
from aer_jax.data.preparation import shards
from aer_jax.data.preparation.left_out import summarize
from aer_jax.data.preparation.prepare import NO_VOTE_INSIDE, VOTE_OUTSIDE, prepare
from aer_jax.data.records import ShardWriter
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote, Votes

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
    assert list(dataset.votes) == [vote for c in source.clips for vote in c.votes]
    stored = json.loads((dataset.path / "splits.json").read_text())
    assert stored["seed"] == 3 and "seed 3" in stored["how"]
    for c in source.clips:
        u = dataset.utterances[c.id]
        assert (u.speaker, u.transcript, u.seconds) == (c.speaker, c.transcript, 0.5)
    assert [p.name for p in (tmp_path / "made" / "here").iterdir()] == ["out"]


def test_the_report(tmp_path):
    clips = [clip(0, votes="aaaa"), clip(1, votes="ab"), clip(2, votes="aabbbc"), clip(3, waveform(peak=2))]
    report = re.sub(" +", " ", (prepare(corpus(clips), tmp_path / "out", ["a", "b"]).path / "report.md").read_text())
    for line in (
        "4 clips found, **4 kept**, 4 speakers, 15 votes",
        "| a | 9 | 64.3% | 2 |",  # 9 of the 14 votes inside; leads in clips 0 and 3
        "| b | 5 | 35.7% | 1 |",
        "| (tied) | | | 1 |",
        "Votes outside the classes, kept in `votes.jsonl` but not counted: c 1.",
        "| raters per clip | 3.8 | 2.0 |",
        # Entropies / log 2: 0, 1, H(2/5, 3/5) = 0.97095, 0.91830 for aab.
        "| ambiguity (entropy / log K, 0 to 1) | 0.722 | 0.000 | 0.689 |",
        "All votes of a clip agree in 25.0% of the clips.",
        "| train | 2 | 0.0 |",
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
    report = re.sub(" +", " ", (dataset.path / "report.md").read_text())
    for reason, c in bad.items():
        assert f"| {reason} | 1 | {c.id} |" in report


def test_no_usable_clip_is_an_error(tmp_path):
    clips = [*(clip(i, tmp_path / "gone.wav") for i in range(3)), clip(3, votes="")]
    with pytest.raises(
        UserError, match=r"no clip of the corpus little is usable \(no vote: 1; audio file missing: 3\)"
    ):
        prepare(corpus(clips), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_paths_are_said_of_missing_audio_alone(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    clips = [clip(0, tmp_path / "folder.wav"), clip(1, tmp_path / "gone.wav", votes="")]
    assert summarize({"audio file missing": [clips[0].id], "no vote": [clips[1].id]}, clips) == [
        ("audio file missing", 1, f"{clips[0].id}, {tmp_path / 'folder.wav'} is a folder"),
        ("no vote", 1, clips[1].id),
    ]


def test_what_is_left_out_is_on_the_screen(tmp_path, capsys):
    """Classes, counts, the first of each reason, and where the first missing file was looked for."""
    lines = ["id,audio,speaker,votes"]
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", waveform().samples, 8000)
        lines.append(f"u{i},{i}.wav,s{i % 3},a;b")
    lines += ["gone,nowhere/x.wav,s1,a", "gone2,nowhere/y.wav,s1,a", "bare,0.wav,s2,"]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    args = ["prepare", "--corpus", "manifest", "--root", tmp_path / "m.csv", "--out", tmp_path / "out"]
    assert cli.main([*map(str, args)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{tmp_path / 'out'}: 6 of 9 clips kept: 2 train, 2 validation, 2 test; see ")
    assert said[1] == "classes: a, b"
    gone = f"the first gone, looked for {tmp_path / 'nowhere' / 'x.wav'}"
    assert said[2] == (f"left out or not read: no vote: 1 (the first bare); audio file missing: 2 ({gone})")
    args[-1] = tmp_path / "json"
    assert cli.main([*map(str, args), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["classes"], result["test"]) == (["a", "b"], 2)
    assert result["left_out"][0] == {"reason": "no vote", "number": 1, "first": "bare"}


def test_where_nothing_is_usable_the_first_missing_file_is_named(tmp_path):
    clips = [*(clip(i, tmp_path / f"gone{i}.wav") for i in range(3)), clip(3, votes="")]
    with pytest.raises(UserError, match=rf"first: utt003 \(no vote\), utt000, looked for {tmp_path}/gone0.wav \(audio"):
        prepare(corpus(clips), tmp_path / "out")


def test_a_split_that_fails_says_what_was_left_out_before(tmp_path):
    clips = [clip(0), clip(1), clip(2, tmp_path / "gone.wav")]
    with pytest.raises(
        UserError, match=r"2 speaker\(s\) cannot be .* Left out before: audio file missing: 1 .*gone.wav"
    ):
        prepare(corpus(clips), tmp_path / "out")


def copies(tmp_path):
    """Three recordings of one sound, in two formats, and six others."""
    sound = waveform()
    soundfile.write(tmp_path / "a.wav", sound.samples, sound.rate)
    soundfile.write(tmp_path / "b.flac", soundfile.read(tmp_path / "a.wav")[0], sound.rate)
    return [clip(i) for i in range(6)], [tmp_path / "a.wav", tmp_path / "b.flac", tmp_path / "a.wav"]


def test_one_recording_under_several_speakers_is_said(tmp_path):
    others, (a, b, again) = copies(tmp_path)
    clips = [*others, clip(10, a, speaker="s0"), clip(11, b, speaker="s1"), clip(12, again, speaker="s0")]
    dataset = prepare(corpus(clips), tmp_path / "out")
    assert len(dataset.utterances) == 9
    (note,) = json.loads((dataset.path / "dataset.json").read_text())["notes"]
    assert note.startswith(
        "3 clips have the same audio as another clip of another speaker, the first utt010 (also utt011)"
    )
    part_of = {id: part for part, ids in dataset.splits.items() for id in ids}
    divided = len({part_of[f"utt0{i}"] for i in (10, 11, 12)}) > 1
    assert ("in another split" in note) == divided
    assert "correct the table" in note
    assert note in re.sub(" +", " ", (dataset.path / "report.md").read_text())


def test_one_recording_under_several_ids_of_a_speaker_is_said(tmp_path):
    others, (a, b, _) = copies(tmp_path)
    unknown = clip(12, a, speaker=UNKNOWN_SPEAKER)
    dataset = prepare(
        corpus([*others, clip(10, a, speaker="s0"), clip(11, b, speaker="s0"), unknown]), tmp_path / "out"
    )
    assert {"utt010", "utt011"} < dataset.utterances.keys()
    note = "2 clips have the same audio as another clip of their speaker, the first utt010 (also utt011)."
    assert json.loads((dataset.path / "dataset.json").read_text())["notes"] == [note]
    assert note in re.sub(" +", " ", (dataset.path / "report.md").read_text())


def test_parts_of_a_recording_that_splits_share_are_said(tmp_path):
    """A dialogue in which two speakers talk at once, and a line that forgets its times, in another split."""
    soundfile.write(tmp_path / "a.wav", RNG.normal(0, 0.1, 24_000), 8000)  # 3 s
    parts = ["train", "train", "validation", "test", "test"]
    times = [(0.0, 0.5), (0.6, 1.0), (0.98, 1.5), (1.3, 2.0), (2.5, 3.0)]
    clips = [
        dataclasses.replace(clip(i, tmp_path / "a.wav", speaker=f"s{part}", split=part), start=start, end=end)
        for i, (part, (start, end)) in enumerate(zip(parts, times, strict=True))
    ]
    note = "1 clips share a part of their recording with a clip of another speaker in another split, the first utt003"
    said = json.loads((prepare(corpus(clips), tmp_path / "out").path / "dataset.json").read_text())["notes"]
    assert len(said) == 1 and said[0].startswith(f"{note} (with utt002)")
    clips[0] = dataclasses.replace(clips[0], end=None)
    said = json.loads((prepare(corpus(clips), tmp_path / "whole").path / "dataset.json").read_text())["notes"]
    assert len(said) == 1 and said[0].startswith("3 clips share") and "utt002 (with utt000)" in said[0]


def test_a_copy_is_seen_across_shards_that_were_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)  # a shard each
    others, (a, b, _) = copies(tmp_path)
    clips = [*others, clip(10, a, speaker="s0"), clip(11, b, speaker="s1")]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_module, "_write_lines", interrupted)
        prepare(corpus(clips), tmp_path / "out")
    assert "2 clips have the same audio" in (prepare(corpus(clips), tmp_path / "out").path / "report.md").read_text()


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


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(ShardWriter, "add", full_disk)
    with pytest.raises(UserError, match=r"the disk of .* is full") as error:
        prepare(corpus([clip(i) for i in range(3)]), tmp_path / "out")
    assert "goes on from it" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch):
    clips = [clip(i) for i in range(3)]
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"What is finished stays in .*partial"):
        patch.setattr(prepare_module, "_write_lines", full_disk)
        prepare(corpus(clips), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = (prepare(corpus(clips), tmp_path / "out").path / "report.md").read_text()
    assert report.endswith("\n3 clips were taken over from an interrupted run.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_an_older_run_left_behind_is_swept_up(tmp_path):
    partial = tmp_path / ".out.partial"
    (partial / "report").mkdir(parents=True)
    for name in ("votes.jsonl", "records-00000.part", "records-00000-of-00009.json", "report/votes.svg"):
        (partial / name).write_text("half")
    (partial / "records-00000-of-00001.json").write_text('{"key": "of other clips"}')
    prepare(corpus([clip(i) for i in range(3)]), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "records-00000-of-00001.array_record",
        "report",
        "report.md",
        "splits.json",
        "utterances.jsonl",
        "votes.jsonl",
    ]


KILLED = """
import os, signal, sys
from pathlib import Path
from aer_jax.corpora.manifest import reader as manifest
from aer_jax.data.preparation import shards
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.left_out import summarize
from aer_jax.data.preparation.prepare import NO_VOTE_INSIDE, VOTE_OUTSIDE, prepare
from aer_jax.data.records import ShardWriter

shards.SHARD_BYTES = 40_000  # five clips
encode, left = shards._encode, [int(sys.argv[3])]

def killed(clip):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return encode(clip)

shards._encode = killed
shards.cores = lambda: 1
prepare(manifest.read(Path(sys.argv[1])), sys.argv[2])
"""


def test_a_run_killed_in_the_middle_goes_on(tmp_path, monkeypatch):
    """kill -9 after 12 of 20 clips: no dataset is there; the next run takes two shards of five over."""
    lines = ["id,audio,speaker,votes"]
    for i in range(20):
        soundfile.write(tmp_path / f"{i}.wav", waveform().samples, 8000)
        lines.append(f"u{i},{i}.wav,s{i % 5},a;b")
    (tmp_path / "m.csv").write_text("\n".join(lines))

    def run(out, clips):
        args = [sys.executable, "-c", KILLED, tmp_path / "m.csv", tmp_path / out, str(clips)]
        return subprocess.run(args, capture_output=True, text=True)

    assert run("out", 12).returncode == -9
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="is not a dataset"):
        open_dataset(tmp_path / ".out.partial")
    soundfile.write(tmp_path / "7.wav", waveform().samples, 8000)  # of the second shard: it must be made again
    assert run("out", 1000).returncode == 0
    assert not (tmp_path / ".out.partial").exists()
    assert run("whole", 1000).returncode == 0
    resumed, whole = (open_dataset(tmp_path / name, verify=True) for name in ("out", "whole"))
    said = [re.sub(" +", " ", (d.path / "report.md").read_text()).splitlines()[-1] for d in (resumed, whole)]
    assert said[0].startswith("5 clips were taken over from an interrupted run. Prepared at")
    assert said[1].startswith("Prepared at") and "100,000 such clips would take" in said[1]
    shards = [f"records-0000{i}-of-00004.array_record" for i in range(4)]
    for file in ("dataset.json", "utterances.jsonl", "votes.jsonl", "splits.json", *shards):
        assert (resumed.path / file).read_bytes() == (whole.path / file).read_bytes(), file
    assert np.array_equal(resumed.audio("u19"), whole.audio("u19"))


def test_a_damaged_shard_is_not_taken_over(tmp_path, monkeypatch):
    clips = [clip(i) for i in range(3)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_module, "_write_lines", interrupted)
        prepare(corpus(clips), tmp_path / "out")
    shard = next((tmp_path / ".out.partial").glob("*.array_record"))
    shard.write_bytes(shard.read_bytes()[:-7])
    open_dataset(prepare(corpus(clips), tmp_path / "out").path, verify=True)


def interrupted(*_):
    raise KeyboardInterrupt


def test_two_runs_do_not_write_to_one_place(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    with (tmp_path / ".out.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another prepare is writing"):
            prepare(corpus([clip(i) for i in range(3)]), tmp_path / "out")
    assert (tmp_path / ".out.partial").is_dir()


@pytest.mark.parametrize("file", ["votes.jsonl", "splits.json", "records-00000-of-00001.array_record"])
def test_every_file_can_be_verified(tmp_path, file):
    dataset = prepare(corpus([clip(i) for i in range(3)]), tmp_path / "out")
    open_dataset(dataset.path, verify=True)
    content = bytearray((dataset.path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (dataset.path / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file} is not what was written"):
        open_dataset(dataset.path, verify=True)
    (dataset.path / file).unlink()
    with pytest.raises(UserError, match=f"cannot read .*{file}"):
        open_dataset(dataset.path, verify=True)


def test_votes_outside_the_classes_renormalise_or_drop(tmp_path):
    clips = [clip(0, votes="aab"), clip(1, votes="abc"), clip(2, votes="bb"), clip(3, votes="ab"), clip(4, votes="cc")]
    both = prepare(corpus(clips), tmp_path / "both", ["a", "b"])
    inside = prepare(corpus(clips), tmp_path / "inside", ["a", "b"], outside="drop")
    assert list(both.utterances) == ["utt000", "utt001", "utt002", "utt003"]
    assert list(inside.utterances) == ["utt000", "utt002", "utt003"]
    assert Votes(both.votes).counts(["utt001"], both.classes).tolist() == [[1, 1]]
    report = re.sub(" +", " ", (inside.path / "report.md").read_text())
    assert f"| {VOTE_OUTSIDE} | 1 | utt001 |" in report and f"| {NO_VOTE_INSIDE} | 1 | utt004 |" in report
    assert json.loads((inside.path / "dataset.json").read_text())["settings"]["outside"] == "drop"
    with pytest.raises(UserError, match=r'outside is "no"; known: renormalise, drop'):
        prepare(corpus(clips), tmp_path / "no", outside="no")


def test_choices_are_recorded(tmp_path):
    source = corpus([clip(i) for i in range(4)])
    source.choices, source.notes = {"excited": "apart"}, ["Session5 is not there."]
    dataset = prepare(source, tmp_path / "out", seed=1, split="fold:2/3")
    settings = json.loads((dataset.path / "dataset.json").read_text())["settings"]
    assert (settings["excited"], settings["split"], settings["seed"]) == ("apart", "fold:2/3", 1)
    report = re.sub(" +", " ", (dataset.path / "report.md").read_text())
    for line in ("| excited | apart |", "| split | fold:2/3 |", "Session5 is not there.", "clips/s on"):
        assert line in report, line


def test_an_id_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds two clips utt000"):
        prepare(corpus([clip(0), clip(0)]), tmp_path / "out")


def test_a_split_that_cannot_be_is_said_before_the_audio_is_read(tmp_path):
    with pytest.raises(UserError, match=r"2 speaker\(s\) cannot be divided"):
        prepare(corpus([clip(0, tmp_path / "gone.wav"), clip(1)]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_random_split_is_opened_knowingly(tmp_path):
    clips = [clip(i, speaker=f"s{i % 2}") for i in range(10)]
    dataset = prepare(corpus(clips), tmp_path / "out", split="random", seed=42)
    assert not dataset.speakers_apart and not open_dataset(dataset.path).speakers_apart
    assert "**2 speakers are in more than one of them**" in re.sub(" +", " ", (dataset.path / "report.md").read_text())
    stored = json.loads((dataset.path / "splits.json").read_text())
    assert stored["how"] == "at random by utterance with seed 42, as the paper does"
    del stored["speakers_apart"]  # without the mark it is a dataset like any other, and refused
    (dataset.path / "splits.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="into both"):
        open_dataset(dataset.path)


def test_classes_must_be_known(tmp_path):
    with pytest.raises(UserError, match='class "d"'):
        prepare(corpus([clip(0)]), tmp_path / "out", ["a", "d"])


def test_transcripts_of_thousands_of_words_are_cut_and_said(tmp_path):
    """Attention takes the square of a prompt; a clip is read up to 30 s."""
    clips = [dataclasses.replace(clip(i), transcript="word " * n) for i, n in enumerate((3, 20_000, 790))]
    clips.append(dataclasses.replace(clip(3), transcript="x" * 4001))
    dataset = prepare(corpus(clips), tmp_path / "out")
    kept = [u.transcript for u in dataset.utterances.values()]
    assert kept[0] == clips[0].transcript and kept[2] == clips[2].transcript
    assert 3990 < len(kept[1]) <= 4000 and kept[1].split() == ["word"] * len(kept[1].split()) and kept[3] == "x" * 4000
    said = "2 transcript(s) are longer than 4,000 characters and are cut there, the first that of"
    assert said in re.sub(" +", " ", (dataset.path / "report.md").read_text())
