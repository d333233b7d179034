"""Files, folders, bytes and long recordings through `aer-jax predict`: what comes out, and what of bad ones is said."""

import csv
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
import soundfile
import toy_runs

from aer_jax import cli
from aer_jax.inference import formats
from aer_jax.inference.prediction import Prediction
from aer_jax.inference.sources import find_audio
from aer_jax.inference.windows import Windowing


@pytest.fixture
def predict(capsys, monkeypatch):
    """(exit code, standard output, standard error) of the command."""

    def run(*args, stdin=b"", path=None):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = cli.main(["predict", "--run", str(path or toy_runs.trained_run()), *map(str, args)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def shares(line):
    return np.array(list(line["probs"].values()))


def test_folders_files_and_standard_input(predict, speech, tmp_path):
    speech("in/b.wav", 1)
    speech("in/deep/a.FLAC", 2)
    (tmp_path / "in" / "notes.txt").write_text("not audio")
    (tmp_path / "in" / "._b.wav").write_bytes(b"what macOS leaves")
    alone = speech("c.ogg", 3)
    code, out, err = predict(alone, tmp_path / "in", "-", "--json", stdin=(tmp_path / "in" / "b.wav").read_bytes())
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["file"] for line in lines] == [
        str(alone),
        str(tmp_path / "in" / "b.wav"),
        str(tmp_path / "in" / "deep" / "a.FLAC"),
        "-",
    ]
    np.testing.assert_allclose(shares(lines[3]), shares(lines[1]), atol=1e-4)
    assert "left out of the folders, not audio by their endings: 1 .txt" in err
    assert "4 recordings" in err and "per second" in err and "x real time" in err
    for line in lines:
        assert sum(line["probs"].values()) == pytest.approx(1, abs=1e-5)
        p = shares(line)
        assert line["ambiguity"] == pytest.approx(-(p * np.log(p)).sum() / np.log(4), abs=1e-4)
        assert line["interval_level"] == 0.9
        for name, (low, high) in line["interval"].items():
            assert 0 <= low <= line["probs"][name] + 1e-4 and line["probs"][name] <= high + 1e-4 <= 1.0001


def test_bad_files_are_said_and_the_others_predicted(predict, speech, tmp_path):
    rng = np.random.default_rng(0)
    good = [speech("good1.wav", 0), speech("good2.wav", 1)]
    noise = rng.normal(0, 0.1, 16_000)
    bad = {
        "missing.wav": "there is no audio file",
        "empty.wav": "0 bytes",
        "none.wav": "no samples",
        "silent.wav": "silent",
        "nan.wav": "not finite",
        "text.wav": "cannot read",
        "cut.wav": "shorter than its header says",
        "short.wav": "lasts 0.050 s",
        "pipe.wav": "is a pipe",
        "pointer.wav": "git lfs pull",
    }
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.where(noise > 0.2, np.nan, noise), 16_000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("this is not audio" * 100)
    soundfile.write(tmp_path / "cut.wav", noise, 16_000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "cut.wav").read_bytes()[:20_000])
    soundfile.write(tmp_path / "short.wav", noise[:800], 16_000)
    files = [good[0], *(tmp_path / name for name in bad), good[1]]
    code, out, err = predict(*files, "--json")
    assert code == 2
    assert [json.loads(line)["file"] for line in out.splitlines()] == list(map(str, good))
    said = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("aer-jax: ")]
    assert len(said) == len(bad) and "Traceback" not in err
    for (name, words), sentence in zip(bad.items(), said, strict=True):
        assert name in sentence and words in sentence and sentence.endswith(".")


def test_nothing_usable(predict, tmp_path):
    code, out, err = predict(tmp_path / "no.wav", "-", "--format", "csv")
    assert code == 2 and out.splitlines()[1:] == []
    assert "standard input has 0 bytes" in err and "0 recordings" in err


def test_csv_of_hostile_names_reads_back():
    """A line end in a file's name stays in its cell, and neither it nor a class is a formula."""
    classes = ("=HYPERLINK()", "-calm", "sad,glad")
    form = formats.csv(classes, [])
    prediction = Prediction("=1+1\r\n\n.wav", 1.0, dict(zip(classes, (0.2, 0.3, 0.5), strict=True)), 0.5)
    rows = list(csv.reader(io.StringIO("\n".join([*form.heading, *form.lines(prediction)]), newline="")))
    assert rows[0][3:6] == ["'=HYPERLINK()", "'-calm", "sad,glad"] and len(rows) == 2
    assert rows[1][0] == "'=1+1\r\n\n.wav" and rows[1][3:6] == ["0.200000", "0.300000", "0.500000"]


def test_a_long_recording_in_windows(predict, speech, tmp_path):
    """Each window is predicted as if it were alone; silence is left out of the mean."""
    file = speech("long.wav", 0, 1, 2, 3, seconds=35)
    samples, _ = soundfile.read(file)
    samples[10 * 16_000 : 20 * 16_000] = 0
    soundfile.write(file, samples, 16_000)
    code, out, _ = predict(file, "--json")
    line = json.loads(out)
    spans = [(part["start"], part["end"]) for part in line["timeline"]]
    assert code == 0 and "interval" not in line and line["seconds"] == 35
    assert spans == [(0, 10), (8.333, 18.333), (16.667, 26.667), (25, 35)]
    heard = [part for part in line["timeline"] if part["probs"]]
    np.testing.assert_allclose(shares(line), np.mean([shares(part) for part in heard], axis=0), atol=1e-5)

    soundfile.write(tmp_path / "part.wav", samples[25 * 16_000 :], 16_000)
    _, out, _ = predict(tmp_path / "part.wav", "--json")
    np.testing.assert_allclose(shares(json.loads(out)), shares(line["timeline"][3]), atol=1e-3)

    code, out, _ = predict(file, "--window", 5, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["end"] for row in rows] == [f"{end}.000" for end in range(5, 36, 5)]
    assert [row["sad"] == "" for row in rows] == [False, False, True, True, False, False, False]
    assert {row["sad_low"] for row in rows} == {""}


@pytest.mark.parametrize("kind", ["png", "svg", "html"])
def test_figures(predict, speech, tmp_path, kind):
    files = [speech("a&<b>.wav", 0, 1, 2), speech("short.wav", 0)]
    code, out, _ = predict(*files, "--window", 2, "--hop", 1, "--figure", tmp_path / f"line.{kind}")
    assert code == 0 and "0.0 to 2.0 s" in out
    drawn = (tmp_path / f"line.{kind}").read_bytes()
    if kind == "html":
        assert b"a&amp;&lt;b&gt;.wav" in drawn and b"<b>" not in drawn and b"http" not in drawn
        assert drawn.count(b"<svg") == 1  # the one in windows
    else:
        assert len(drawn) > 10_000 and (kind == "svg" or drawn.startswith(b"\x89PNG"))


def test_words_from_a_table(predict, speech, tmp_path):
    files = [speech("in/a.wav", 0), speech("in/b.wav", 1)]
    (tmp_path / "words.csv").write_text('file,transcript\nin/a.wav,"Leave it, now."\n')
    (tmp_path / "words.jsonl").write_text('{"file": "in/a.wav", "transcript": "Leave it, now."}\n\n')
    _, plain, _ = predict(*files, "--json")
    _, told, err = predict(*files, "--json", "--transcripts", tmp_path / "words.csv")
    _, again, _ = predict(*files, "--json", "--transcripts", tmp_path / "words.jsonl")
    _, same, _ = predict(files[0], "--json", "--transcript", "Leave it, now.")
    assert "has words for 1 of 2 files" in err and told == again
    plain, told = ([json.loads(line) for line in text.splitlines()] for text in (plain, told))
    np.testing.assert_allclose(shares(told[0]), shares(json.loads(same)), atol=1e-4)
    assert np.abs(shares(told[0]) - shares(plain[0])).max() > 1e-3
    np.testing.assert_allclose(shares(told[1]), shares(plain[1]), atol=1e-4)


def test_output_to_a_file_and_a_run_without_a_band(predict, speech, tmp_path):
    run = shutil.copytree(toy_runs.trained_run(), tmp_path / "run")
    (run / "band.json").unlink()
    out_file = tmp_path / "shares.jsonl"
    code, out, err = predict(speech("a.wav", 0), "--out", out_file, path=run)  # the ending says the format
    assert code == 0 and out == "" and "no readable band.json" in err and f"wrote {out_file}" in err
    assert set(json.loads(out_file.read_text())) == {"file", "seconds", "probs", "ambiguity"}


def test_windows_cover_everything():
    for length, window, hop in [(560, 160, 160), (161, 160, 160), (1000, 100, 30), (480_001, 160_000, 80_000)]:
        spans = Windowing(window, hop, longest=window).spans(length)
        starts = [start for start, _ in spans]
        assert starts[0] == 0 and spans[-1][1] == length and {end - start for start, end in spans} == {window}
        assert max(np.diff(starts)) <= hop
        assert len(spans) == -(-(length - window) // hop) + 1


def test_files_are_found_once_and_in_order(tmp_path):
    for name in ("b.wav", "a.wav", "sub/c.mp3", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find_audio([tmp_path / "b.wav", tmp_path])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b.wav", "a.wav", "sub/c.mp3"]
