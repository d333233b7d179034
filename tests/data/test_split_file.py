"""A split in a file of one's own: what it may look like, and what is said about it."""

import contextlib
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aer_jax.corpora.base import UNKNOWN_SPEAKER, Clip, Corpus, Waveform
from aer_jax.data.preparation.prepare import prepare
from aer_jax.data.preparation.splits import parse_rule, split_clips
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

RNG = np.random.default_rng(0)


def clip(i, speaker=None):
    noise = Waveform(RNG.normal(0, 0.1, 2000).astype(np.float32), 8000)
    return Clip(f"u{i}", speaker or f"s{i % 3}", noise, (Vote(f"u{i}", "ab"[i % 2]),))


CLIPS = [clip(i) for i in range(6)]
BY_SPEAKER = {"train": ["u0", "u3"], "validation": ["u1", "u4"], "test": ["u2", "u5"]}


def divided(path, clips=CLIPS):
    rule = parse_rule(str(path), clips)
    kept = [one for one in clips if rule.leaves_out(one) is None]
    return split_clips(kept, 0, rule)[0], rule


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.csv", "speaker,part\ns0,train\ns1,validation\ns2,test\n"),
        ("s.csv", "\ufeffSpeaker_ID;Split\r\ns0;Train\r\ns1;DEV\r\ns2;Test\r\n"),
        ("s.tsv", "SpkrID\tSplit_Set\ns0\ttraining\ns1\tDevelopment\ns2\ttest\n\n"),
        ("s.txt", "actor|subset\ns0|train\ns1|valid\ns2|test"),
        ("s.jsonl", '{"speaker": "s0", "set": "train"}\n\n{"set":"val","speaker":"s1"}\n{"set":"test","speaker":"s2"}'),
        ("s.csv", "id,audio,speaker,split\n" + "".join(
            f"u{i},x.wav,s{i % 3},{('train', 'val', 'test')[i % 3]}\n" for i in range(6))),
        ("s.csv", "file,partition\n" + "".join(
            f"clips/u{i}.wav,{('train', 'val', 'test')[i % 3]}\n" for i in range(6))),
        ("s.json", json.dumps([{"speaker": f"s{i}", "part": part} for i, part in enumerate(BY_SPEAKER)])),
        ("splits.json", json.dumps({"seed": 3, "how": "by hand", "speakers_apart": True, **BY_SPEAKER})),
    ],
)  # fmt: skip
def test_every_form_gives_the_same_split(tmp_path, name, text):
    (tmp_path / name).write_text(text, newline="")
    splits, rule = divided(tmp_path / name)
    assert splits == BY_SPEAKER
    assert rule.keeps_speakers_apart and rule.notes == []


def test_what_is_unknown_or_missing_or_shared_is_said(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("id,part\nu0,train\nu1,dev\nu2,test\nu3,test\nu4,\nx9,train\nx8,test\n")
    splits, rule = divided(path)
    assert splits == {"train": ["u0"], "validation": ["u1"], "test": ["u2", "u3"]}
    assert [rule.leaves_out(one) for one in CLIPS[4:]] == ["in no part of mine.csv"] * 2
    assert rule.notes == [
        "mine.csv names 2 id(s) that no clip of the corpus has, the first x9.",
        "mine.csv puts clips of 1 speaker(s) into more than one part, the first s0: the test then says how well known "
        "voices are judged.",
    ]
    corpus = Corpus("little", ("a", "b"), ("a", "b"), CLIPS)
    dataset = prepare(corpus, tmp_path / "out", split=str(path))
    assert not dataset.speakers_apart
    report = re.sub(" +", " ", (dataset.path / "report.md").read_text())
    assert "Chosen by id, as mine.csv says; **1 speakers are in more than one of them**" in report
    assert "| in no part of mine.csv | 2 | u4; u5 |" in report
    assert all(note in report for note in rule.notes)
    assert json.loads((dataset.path / "dataset.json").read_text())["notes"] == rule.notes


def test_an_unknown_speaker_may_be_in_training_only(tmp_path):
    (tmp_path / "s.csv").write_text("id,part\n" + "".join(f"u{i},{'train' if i < 2 else 'test'}\n" for i in range(4)))
    clips = [clip(i, UNKNOWN_SPEAKER) for i in range(4)]
    rule = parse_rule(str(tmp_path / "s.csv"), clips)
    assert [rule.leaves_out(one) is None for one in clips] == [True, True, False, False]
    assert rule.keeps_speakers_apart, "who is unknown is not one speaker"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "", r"line 1: a split file needs the columns id or speaker, and part \(or split\); it has none"),
        ("s.csv", "speaker,fold\ns0,1\n", "needs the columns id or speaker, and part .*; it has speaker, fold"),
        ("s.csv", "id,part,part\nu0,train,test\n", 'the column "part" stands there twice'),
        ("s.csv", "id,part\nu0,train\nu1,trian\n", 'line 3: split is "trian"'),
        ("s.csv", "id,part\nu0,train\nu0,test\n", "line 3 puts id u0 into test, but a line before into train"),
        ("s.csv", "id,part\nu0\n", "line 2 has 1 cells, the header has 2"),
        ("s.csv", 'id,part\n"u0,train\n', "is not CSV"),
        ("s.csv", "id,part\n,train\n", "line 2 names no id"),
        ("s.csv", "id,part\nu0,\n", "puts nothing into a part"),
        ("s.csv", "id,part\nA,train\nB,test\n", "no id of s.csv is one of the corpus' .the file has A, the corpus u0"),
        ("s.jsonl", '["u0", "train"]', "item 1 is not a JSON object"),
        ("s.jsonl", "u0 train", "line 1 is not valid JSON"),
        ("s.json", "[1]", "s.json, item 1 is not a JSON object"),
        ("s.csv", "id,part\nu0,train\nu1,test\n", r"s.csv leaves no usable clip for validation \(1 train, 0 valid"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        divided(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone.csv: No such file"):
        parse_rule(str(tmp_path / "gone.csv"), CLIPS)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["s.csv", "s.tsv", "s.jsonl", "s.json", "s.xlsx", "s.parquet", "s.txt"]),
    before=st.sampled_from([b"", b"id,part\n", b"speaker\tsplit\n", b'{"id": "u0", "part": ', b"[", b'{"train": ']),
    content=st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
)  # fmt: skip
def test_any_bytes_give_a_split_or_a_sentence(tmp_path, name, before, content):
    (tmp_path / name).write_bytes(before + content)
    with contextlib.suppress(UserError):
        divided(tmp_path / name)


@pytest.mark.parametrize("text", ["x" * 300, "a\0b", "", "/", "no/such/folder/s.csv", "x" * 300 + ".csv"])
def test_any_name_gives_a_sentence(text):
    with pytest.raises(UserError):
        parse_rule(text, CLIPS)
