"""Manifests as spreadsheets, pandas and dialogue corpora write them."""

import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aer_jax.corpora import read_corpus
from aer_jax.corpora.base import UNREADABLE
from aer_jax.corpora.manifest import reader as manifest
from aer_jax.corpora.tables.read import read_table
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

HEADER = "id,audio,speaker,votes"


def table(tmp_path, *lines, name="m.csv"):
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / name


def votes(corpus):
    return {clip.id: [vote.label for vote in clip.votes] for clip in corpus.clips}


def test_columns_of_counts(tmp_path):
    path = table(tmp_path, "File;Speaker;Angry;Happy;Not sure", "a.wav;s1;0;2;", "b.wav;s2;3;0;1,0")
    with pytest.raises(UserError, match=r"line 1: .*--map counts=Angry\+Happy\+Not sure"):
        manifest.read(path)
    corpus = manifest.read(path, map="counts=angry+happy+Not sure")
    assert votes(corpus) == {"a": ["Happy"] * 2, "b": ["Angry"] * 3 + ["Not sure"]}
    assert corpus.choices == {"map": "counts=angry+happy+Not sure"}
    assert any('no column "id"' in note for note in corpus.notes)
    with pytest.raises(UserError, match=r'line 2: the count of "Angry" is 0.5'):
        manifest.read(table(tmp_path, "file,speaker,Angry,Sad", "a.wav,s,0.5,0.5"), map="counts=Angry+Sad")
    with pytest.raises(UserError, match='line 2: "1,000" in counts is not a number'):
        manifest.read(table(tmp_path, "file,speaker,Angry,Sad", 'a.wav,s,"1,000",0'), map="counts=Angry+Sad")


def test_columns_of_shares(tmp_path):
    path = table(tmp_path, "id;file;speaker;A;B", "a;a.wav;s1;0,7;0,3", "b;b.wav;s2;-;1", "c;c.wav;s2;;")
    corpus = manifest.read(path, map="shares=A+B")
    a, b, c = corpus.clips
    assert a.votes == (Vote("a", "A", weight=0.7), Vote("a", "B", weight=0.3))
    assert b.votes == (Vote("b", "B"),) and c.votes == ()
    assert any(
        "2 clips give shares" in note and "number of raters behind them is unknown" in note for note in corpus.notes
    )


def test_columns_of_raters(tmp_path):
    synonyms = table(tmp_path, "anger,angry", name="synonyms.csv")
    path = table(
        tmp_path, "ID,Audio,Speaker,rater1,rater2,rater3", "a,a.wav,s,Happy,happy,NEUTRAL", "b,b.wav,s,Anger,angry,"
    )
    with pytest.raises(UserError, match=r'"Happy" and "happy" differ by case alone.*--labels'):
        manifest.read(path)
    corpus = manifest.read(path, labels=synonyms)
    assert corpus.classes == ("angry", "happy", "neutral")
    assert corpus.clips[1].votes == (Vote("b", "angry", "rater1"), Vote("b", "angry", "rater2"))
    path = table(tmp_path, "id,audio,speaker,Ann,Bob", "a,a.wav,s,happy,sad", 'b,b.wav,s,"sad,happy",sad')
    with pytest.raises(UserError, match=r'line 3: "sad,happy" is no label'):
        manifest.read(path, map="raters=Ann+Bob")


def test_a_line_per_vote(tmp_path):
    header = "clip,wav,speaker,annotator,emotion,text"
    lines = ["a,a.wav,s1,r1,happy,hm", "b,b.wav,s2,r1,sad,", "a,a.wav,s1,r2,sad,", "b,b.wav,s2,r2,nan,"]
    corpus = manifest.read(table(tmp_path, header, *lines))
    a, b = corpus.clips
    assert a.votes == (Vote("a", "happy", "r1"), Vote("a", "sad", "r2")) and a.transcript == "hm"
    assert b.votes == (Vote("b", "sad", "r1"),)
    for line, message in [
        ("a,a.wav,s1,r1,sad,", 'line 6: the rater "r1" votes again for "a"'),
        ("a,a.wav,s2,r3,sad,", 'line 6: "speaker" of the clip "a" differs from line 2'),
        ("a,b.wav,s1,r3,sad,", 'line 6: "audio" of the clip "a" differs'),
        ("a,a.wav,s1,r3,sad;happy,", 'line 6: the rater "r3" gives 2 votes'),
    ]:
        with pytest.raises(UserError, match=message):
            manifest.read(table(tmp_path, header, *lines, line))
    lenient = manifest.read(table(tmp_path, header, *lines, "a,a.wav,s1,r1,sad,"), lenient=True)
    assert lenient.clips == corpus.clips and len(lenient.dropped[UNREADABLE]) == 1


def test_a_line_per_vote_needs_raters(tmp_path):
    with pytest.raises(UserError, match=r'line 3: the id "a" stands in line 2 already; .*column "rater"'):
        manifest.read(table(tmp_path, HEADER, "a,a.wav,s1,happy", "a,a.wav,s1,sad"))
    with pytest.raises(
        UserError, match=r'line 3: the recording "a.wav" stands in line 2 already, .*--map rater=COLUMN'
    ):
        manifest.read(table(tmp_path, "file,speaker,label", "a.wav,s1,happy", "a.wav,s1,sad"))
    corpus = manifest.read(table(tmp_path, "file,speaker,rater,label", "a.wav,s1,r1,happy", "a.wav,s1,r2,sad"))
    assert votes(corpus) == {"a": ["happy", "sad"]}


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["x/a.wav", "x/b.wav"], ["a", "b"]),
        (["x/a.wav", "y/a.wav"], ["x/a.wav", "y/a.wav"]),
        ([r"x\a.wav", r"x\b.c.wav"], ["a", "b.c"]),
        (["a.wav", "a.wav"], ["a_2", "a_3"]),  # of two speakers
    ],
)
def test_ids_are_made_of_file_names(tmp_path, files, ids):
    lines = [f"{file},s{i},happy" for i, file in enumerate(files)]
    assert [clip.id for clip in manifest.read(table(tmp_path, "file,speaker,votes", *lines)).clips] == ids


def speech(tmp_path, seconds=2.0, rate=8000, name="long.wav"):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
    soundfile.write(tmp_path / name, samples, rate, subtype="PCM_16")


@pytest.mark.parametrize(
    ("header", "first", "second"),
    [
        ("start,end", "0.25,0.75", "1,1.5"),
        ("start_ms,end_ms", "250,750", "1000,1500"),
        ("offset,duration", "0.25,0.5", "1,0.5"),
        ("onset,offset", "0.25,0.75", "1,1.5"),
        ("onset,duration_ms", "0.25,500", "1,500"),
        ("StartTime,EndTime", "00:00:00.250,00:00:00.75", "0:01,0:01.5"),
        ("Start (s),End (s)", "0 days 00:00:00.25,0 days 00:00:00.75", "0 days 00:00:01,0 days 00:00:01.5"),
    ],
)
def test_segments(tmp_path, header, first, second):
    speech(tmp_path)
    corpus = manifest.read(
        table(tmp_path, f"{HEADER},{header}", f"a,long.wav,s1,happy,{first}", f"b,long.wav,s2,sad,{second}")
    )
    assert [(clip.start, clip.end) for clip in corpus.clips] == [(0.25, 0.75), (1.0, 1.5)]
    assert all(clip.is_segment for clip in corpus.clips)
    assert "2 clips are segments, cut from 1 recording(s)." in corpus.notes


def test_segments_with_a_decimal_comma(tmp_path):
    speech(tmp_path)
    header = "id;audio;speaker;votes;start;end"
    (clip,) = manifest.read(table(tmp_path, header, "a;long.wav;s1;happy;0,25;0,75")).clips
    assert (clip.start, clip.end) == (0.25, 0.75)
    with pytest.raises(UserError, match=r'line 2: "start" is .0,25., not a time'):
        manifest.read(table(tmp_path, header.replace(";", ","), 'a,long.wav,s1,happy,"0,25",1'))


def test_segments_that_are_open_or_in_another_order(tmp_path):
    for name in ("long.wav", "other.wav"):
        speech(tmp_path, name=name)
    lines = ["a,long.wav,s,happy,0.5,NaT", "b,other.wav,s,happy,,1", "c,long.wav,s,sad,nan,0.5", "d,other.wav,s,sad,,"]
    corpus = manifest.read(table(tmp_path, f"{HEADER},start,end", *lines))
    assert [(clip.id, clip.start, clip.end) for clip in corpus.clips] == [
        ("a", 0.5, None), ("c", None, 0.5), ("b", None, 1.0), ("d", None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("1.0", "0.5", "the segment ends at 0.5 s, not after its start at 1 s"),
        ("1.0", "1.0", "the segment ends at 1 s, not after its start at 1 s"),
        ("-0.5", "1.0", '"start" is .-0.5.; a time counts from the start of the recording'),
        ("0", "inf", '"end" is .inf., not a time'),
        ("x", "1", '"start" is .x., not a time'),
        ("1.0", "2.2", "the segment reaches 2.2 s, but the recording lasts 2.000 s"),
        ("2.5", "", "the segment reaches 2.5 s, but the recording lasts 2.000 s"),
        ("500", "1500", ".*are the times milliseconds.*_ms"),
    ],
)
def test_segments_that_are_refused(tmp_path, start, end, message):
    speech(tmp_path)
    path = table(tmp_path, f"{HEADER},start,end", "a,long.wav,s,happy,0,1", f"b,long.wav,s,sad,{start},{end}")
    with pytest.raises(UserError, match=f"line 3: {message}"):
        manifest.read(path)
    assert [clip.id for clip in manifest.read(path, lenient=True).clips] == ["a"]


def test_times_and_channels_that_are_not_read_are_said(tmp_path):
    path = table(tmp_path, f"{HEADER},channel,start_frame,gender", "a,a.wav,s1,happy;sad,2,400,f")
    corpus = manifest.read(path)
    (note,) = [note for note in corpus.notes if note.startswith("Not read")]
    assert "channel, start_frame" in note and "gender" not in note and "--map" in note
    assert corpus.dropped == {"manifest field that is not read": ["channel", "gender", "start_frame"]}


@pytest.mark.parametrize(
    ("spellings", "parts"),
    [
        (["Train", "DEV", "eval"], ["train", "validation", "test"]),
        (["training", "valid", "testing"], ["train", "validation", "test"]),
        (["train", "eval", "test"], ["train", "validation", "test"]),
        (["train", "val", "N/A"], ["train", "validation", None]),
    ],
)
def test_parts(tmp_path, spellings, parts):
    lines = [f"{i},{i}.wav,s{i},happy,{part}" for i, part in enumerate(spellings)]
    assert [clip.split for clip in manifest.read(table(tmp_path, f"{HEADER},Partition", *lines)).clips] == parts


def test_an_evaluation_set_that_may_be_either(tmp_path):
    with pytest.raises(UserError, match='line 3: split is "eval", which could be validation or test'):
        manifest.read(table(tmp_path, f"{HEADER},split", "a,a.wav,s,happy,train", "b,b.wav,s,sad,eval"))


def test_audio_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b.wav").write_bytes(b"")
    (tmp_path / "odd\\name.wav").write_bytes(b"")
    for i, (written, path) in enumerate(
        {
            "sub/a b.wav": tmp_path / "sub" / "a b.wav",
            r"sub\a b.wav": tmp_path / "sub" / "a b.wav",
            "odd\\name.wav": tmp_path / "odd\\name.wav",
            "~/a.wav": tmp_path / "home" / "a.wav",
            f"file://{tmp_path}/sub/a%20b.wav": tmp_path / "sub" / "a b.wav",
            "file://localhost/x/a.wav": Path("/x/a.wav"),
            "/x/y.wav": Path("/x/y.wav"),
        }.items()
    ):
        (clip,) = manifest.read(table(tmp_path, HEADER, f"{i},{written},s,happy")).clips
        assert clip.audio == path, written
    for url in ("https://example.org/a.wav", "s3://bucket/a.wav", "file://server/share/a.wav"):
        with pytest.raises(UserError, match=r"line 2: .*(is a URL|file of another machine)"):
            manifest.read(table(tmp_path, HEADER, f"a,{url},s,happy"))


def test_cells_that_say_there_is_nothing(tmp_path):
    lines = ["a,a.wav,s,happy,nan", "b,b.wav,s,N/A,None", "c,c.wav,s,sad,none", "d,d.wav,s,-,Na"]
    corpus = manifest.read(table(tmp_path, f"{HEADER},transcript", *lines))
    assert [clip.transcript for clip in corpus.clips] == ["", "", "none", "Na"]  # the last two are words
    assert votes(corpus) == {"a": ["happy"], "b": [], "c": ["sad"], "d": []}
    for field, line in (("speaker", "a,a.wav,nan,happy"), ("id", "N/A,a.wav,s,happy"), ("audio", "a,-,s,happy")):
        with pytest.raises(UserError, match=f'line 2: "{field}" is ".*", which says that there is none'):
            manifest.read(table(tmp_path, HEADER, line))


@pytest.mark.parametrize("speaker", [float("inf"), 1.5, True, {"a": 1}, [[[[[[1]]]]]]])
def test_json_values_that_are_no_text(tmp_path, speaker):
    line = json.dumps({"id": "a", "audio": "a.wav", "speaker": speaker, "votes": ["happy"]})
    with pytest.raises(UserError, match='line 1: "speaker" must be text, not '):
        manifest.read(table(tmp_path, line, name="m.jsonl"))


def test_json_as_pandas_writes_it(tmp_path):
    rows = [
        {"File": "a.wav", "speaker": 7.0, "label": "happy", "text": float("nan"), "split": None},
        {"File": "b.wav", "speaker": float("nan"), "label": "sad", "text": "x", "split": "dev"},
    ]
    path = table(tmp_path, json.dumps(rows), name="m.json")
    with pytest.raises(UserError, match='item 2: "speaker" is missing'):
        manifest.read(path)
    rows[1]["speaker"] = 8.0
    a, b = manifest.read(table(tmp_path, json.dumps(rows), name="m.json")).clips
    assert (a.id, a.speaker, a.transcript, a.split) == ("a", "7", "", None)
    assert (b.speaker, b.split, b.votes) == ("8", "validation", (Vote("b", "sad"),))


@pytest.mark.parametrize("suffix", ["xlsx", "parquet"])
def test_manifests_of_pandas(tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "id": [1, 2],
            "file": ["a.wav", "b.wav"],
            "speaker": ["s1", "s2"],
            "votes": ["happy;sad", None],
            "start": [0.5, None],
        }
    )
    getattr(frame, {"xlsx": "to_excel", "parquet": "to_parquet"}[suffix])(tmp_path / f"m.{suffix}", index=False)
    a, b = manifest.read(tmp_path / f"m.{suffix}").clips
    assert (a.id, [vote.label for vote in a.votes], a.start) == ("1", ["happy", "sad"], 0.5)
    assert (b.id, b.votes, b.start) == ("2", (), None)


def test_spellings_that_look_alike(tmp_path):
    """Composed and decomposed letters, zero-width and no-break spaces."""
    lines = [
        "a,a.wav,Jos\u00e9,ver\u00e4rgert",
        "b,b.wav,Jose\u0301 ,vera\u0308rgert\u00a0",
        "c,c.wav,Jos\u00e9\u200b,ver\u200b\u00e4rgert",
    ]
    corpus = manifest.read(table(tmp_path, HEADER, *lines, "d,d.wav,josé,very  calm"))
    assert corpus.classes == ("very calm", "ver\u00e4rgert")
    assert [clip.speaker for clip in corpus.clips] == ["Jos\u00e9"] * 3 + ["jos\u00e9"]
    assert any("Jos\u00e9 and jos\u00e9 differ by case alone" in note for note in corpus.notes)


def test_choices_of_other_corpora(tmp_path):
    with pytest.raises(UserError, match="--map is a choice of manifest, not of crema-d"):
        read_corpus("crema-d", tmp_path, map="audio=x")


def test_sentences_about_long_cells_are_short(tmp_path):
    path = tmp_path / "m.csv"
    long = "[" * 10_000
    for text in (
        f"audio,speaker,votes,split\na.wav,s,sad,{long}\n",
        f"{long},speaker,votes\na.wav,s,sad\n",
        f"audio,speaker,{long},b\na.wav,s,sad,x\n",
        "audio," + ",".join(f"column{i}" for i in range(1000)) + "\n",
        f"audio,speaker,votes,{long},{long}\na.wav,s,sad,1,1\n",
    ):
        path.write_text(text)
        with pytest.raises(UserError) as error:
            manifest.read(path)
        assert len(str(error.value)) < 700 and str(path) in str(error.value)


def test_lines_of_nothing_but_delimiters_are_no_clips(tmp_path):
    (tmp_path / "a.csv").write_text("audio,speaker,votes\na.wav,ben,sad\n,,\n , ,\n,,,,\nb.wav,ben,sad\n")
    assert [row["audio"] for _, row in read_table(tmp_path / "a.csv").rows] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("json", "sentence"),
    [
        ("[" * 100_000 + "]" * 100_000, "it is nested too deeply"),
        (r'[{"audio": "\ud83d"}]', "it holds half a surrogate pair"),
        ('[{"n": ' + "9" * 5000 + "}]", "a number has thousands of digits"),
    ],
)
def test_json_that_python_refuses_in_its_own_words(tmp_path, json, sentence):
    (tmp_path / "a.json").write_text(json)
    with pytest.raises(UserError, match=sentence):
        read_table(tmp_path / "a.json")


@pytest.mark.parametrize(("header", "said"), [("start_frame,end_frame", "start_frame, end_frame"), ("t0,note", "t0")])
def test_segments_by_units_that_are_not_read(tmp_path, header, said):
    path = table(tmp_path, f"audio,speaker,votes,{header}", "long.wav,s,a,0,100", "long.wav,s,b,100,200")
    with pytest.raises(UserError) as refused:
        manifest.read(path)
    sentence = str(refused.value)
    assert 'line 3: the recording "long.wav" stands in line 2 already, and nothing that is read tells' in sentence
    assert f"({said}: not read); name times in seconds with --map start=COLUMN,end=COLUMN" in sentence


def test_durations_that_contradict_start_and_end(tmp_path):
    header = "audio,speaker,votes,start,end,duration"
    rows = ["long.wav,s,a,0,1.5,1.5", "long.wav,s,a,2,4.5,2.5"]
    for wrong, said in (
        ("long.wav,s,b,5,6.5,9", '"duration" is 9 s, but the segment lasts 1.5 s'),
        ("long.wav,s,b,5,,1.5", '"duration" is 1.5 s, but the segment has no end'),
    ):
        with pytest.raises(UserError, match=f"line 4: {said}"):
            manifest.read(table(tmp_path, header, *rows, wrong))
    path = table(tmp_path, header, *rows, "long.wav,s,b,5,6.5,9")
    assert len(manifest.read(path, map="duration=").clips) == 3
    assert manifest.read(path, lenient=True).dropped[UNREADABLE] == [f"{path}, line 4"]
    in_ms = table(tmp_path, f"{header}_ms", "long.wav,s,a,2,4.5,2500", "long.wav,s,b,5,,1500")
    with pytest.raises(UserError, match=r"line 3: .*has no end"):
        manifest.read(in_ms)


def test_durations_of_whole_recordings(tmp_path):
    """A segment that is all of its recording says nothing of what the column means."""
    rows = ["long.wav,s,a,0,1.5,9", "long.wav,s,a,2,4.5,9", "short.wav,s,b,0,2,2"]
    corpus = manifest.read(table(tmp_path, "audio,speaker,votes,start,end,duration", *rows))
    assert [clip.end for clip in corpus.clips] == [1.5, 4.5, 2.0]


def test_dates_of_workbooks_are_named_as_text(tmp_path):
    pd = pytest.importorskip("pandas")
    date = datetime.datetime(2024, 1, 5)
    for column, said in (("id", "not the date 2024-01-05 00:00:00;"), ("votes", "not 2024-01-05 00:00:00")):
        row = {"id": "a", "audio": "a.wav", "speaker": "s", "votes": "happy"} | {column: date}
        pd.DataFrame([row]).to_excel(tmp_path / "m.xlsx", index=False)
        with pytest.raises(UserError, match=said):
            manifest.read(tmp_path / "m.xlsx")
