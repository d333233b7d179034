"""Which files of folders are recordings, how long they are, and the words that a table has for them."""

import json
import os
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from audio_formats import SECONDS, encoded

from aer_jax.errors import UserError
from aer_jax.inference.sources import Source, find_audio, format_skipped, read_transcripts, with_transcripts

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "manifests"
WORDS = "Leave it, now."


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_recordings_of_phones_and_browsers_are_found_and_others_counted(tmp_path):
    audio = [
        "a.m4a",
        "a.aac",
        "a.webm",
        "a.wma",
        "a.mp4",
        "a.mkv",
        "a.mov",
        "a.opus",
        "a.amr",
        "a.3gp",
        "a.WAV",
        "b.Mp3",
    ]
    touch(tmp_path, *audio, "b.txt", "c.TXT", "deep/d.pdf", "README", ".hidden.wav", ".git/x.wav", "e.raw")
    skipped = Counter()
    assert {path.name for path in find_audio([tmp_path], skipped)} == set(audio)
    assert format_skipped(skipped) == "2 .txt, 1 .pdf, 1 .raw, 1 without an ending"


def test_a_folder_without_audio_says_what_it_holds(tmp_path):
    touch(tmp_path, "a.txt", "b.csv", "c.csv")
    with pytest.raises(UserError, match=r"holds no audio file, only 2 \.csv, 1 \.txt"):
        find_audio([tmp_path])


def test_linked_folders_are_gone_through_once(tmp_path):
    touch(tmp_path, "in/a.wav", "other/b.wav")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    assert [path.name for path in find_audio([tmp_path / "in"])] == ["a.wav", "b.wav"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    touch(tmp_path, "a.wav", "locked/b.wav")
    (tmp_path / "locked").chmod(0)
    skipped = Counter()
    find_audio([tmp_path], skipped)
    assert "locked, Permission denied" in format_skipped(skipped)


@pytest.mark.parametrize("name", ["mp3 without index", "webm", "wma", "wav"])
def test_lengths_are_counted_not_estimated(tmp_path, name):
    (tmp_path / "a").write_bytes(encoded(name))
    for content in (tmp_path / "a", encoded(name)):
        assert Source("a", content).seconds() == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", f'file,transcript\na.wav,"{WORDS}"\n'),
        ("t.csv", f"File Name;Text\na.wav;{WORDS}\n"),
        ("t.tsv", f"path\ttranscript\na.wav\t{WORDS}\n"),
        ("t.csv", f'\ufeffAudio,Transcript\r\na.wav,"{WORDS}"\r\n'),
        ("t.jsonl", json.dumps({"file": "a.wav", "transcript": WORDS})),
        ("t.json", json.dumps([{"file": "a.wav", "transcript": WORDS}], indent=1)),
    ],
)
def test_transcripts_in_any_table(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_transcripts(tmp_path / name) == {tmp_path / "a.wav": WORDS}


def test_transcripts_of_a_workbook(tmp_path):
    pd.DataFrame({"file": ["a.wav", "b.wav"], "transcript": [WORDS, None]}).to_excel(tmp_path / "t.xlsx", index=False)
    assert read_transcripts(tmp_path / "t.xlsx") == {tmp_path / "a.wav": WORDS, tmp_path / "b.wav": ""}


def test_a_line_separator_inside_the_words(tmp_path):
    """U+2028 is a character of JSON text, where str.splitlines ends a line."""
    words = "one\u2028two\u0085three"
    line = json.dumps({"file": "a.wav", "transcript": words}, ensure_ascii=False)
    (tmp_path / "t.jsonl").write_text(f"{line}\n", encoding="utf-8")
    assert read_transcripts(tmp_path / "t.jsonl") == {tmp_path / "a.wav": words}


@pytest.mark.skipif(not CASES.exists(), reason=f"no cases at {CASES}")
def test_the_case_with_a_line_separator():
    ((path, words),) = read_transcripts(CASES / "line_separator.jsonl").items()
    assert path.name == "speech.wav" and words.split() == ["one", "two"] and "\u2028" in words


def test_links_that_lead_to_each_other_are_left_to_the_reader(tmp_path):
    (tmp_path / "a.wav").symlink_to("b.wav")
    (tmp_path / "b.wav").symlink_to("a.wav")
    (tmp_path / "t.csv").write_text("file,transcript\na.wav,words\n")
    words = read_transcripts(tmp_path / "t.csv")
    assert len(with_transcripts([tmp_path / "a.wav", Path("nul\0.wav")], words)) == 2
