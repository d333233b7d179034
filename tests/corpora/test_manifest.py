import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aer_jax.corpora import read_corpus
from aer_jax.corpora.base import UNREADABLE
from aer_jax.corpora.manifest import reader as manifest
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote


def csv_file(tmp_path, *lines):
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def jsonl_file(tmp_path, *objects):
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(o if isinstance(o, str) else json.dumps(o) for o in objects) + "\n")
    return path


def clip(**fields):
    return {"id": "a", "audio": "a.wav", "speaker": "s1", "votes": ["angry", "sad"], **fields}


def test_csv(tmp_path):
    path = csv_file(
        tmp_path,
        "id,audio,speaker,transcript,split,votes",
        'a,wav/a.wav,s1,"Well, well.",train,angry;angry;neutral',
        "b,wav/b.wav,s2,,test,angry:2; neutral:1 ;sad:0",
        "",
        "c,/else/c.wav,s3,hm,validation,",
    )
    corpus = manifest.read(path)
    a, b, c = corpus.clips
    assert [vote.label for vote in a.votes] == [vote.label for vote in b.votes] == ["angry", "angry", "neutral"]
    assert a.transcript == "Well, well." and b.transcript == ""
    assert (a.speaker, a.split, a.audio) == ("s1", "train", tmp_path / "wav" / "a.wav")
    assert str(c.audio) == "/else/c.wav" and c.votes == ()
    assert corpus.labels == corpus.classes == ("angry", "neutral")  # nobody voted sad
    assert manifest.read(tmp_path).clips == corpus.clips  # the folder finds its manifest


def test_csv_distribution(tmp_path):
    path = csv_file(tmp_path, "id,audio,speaker,distribution", "a,a.wav,s1,angry:0.75;neutral:0.25;sad:0")
    assert manifest.read(path).clips[0].votes == (Vote("a", "angry", weight=0.75), Vote("a", "neutral", weight=0.25))


def test_jsonl(tmp_path):
    path = jsonl_file(
        tmp_path,
        clip(),
        clip(id="b", votes=[{"rater": "r1", "label": "angry"}, {"rater": 2, "label": "sad"}]),
        "",
        clip(id="c", votes={"angry": 1, "sad": 2}, transcript=None),
        {"id": 7, "audio": "d.wav", "speaker": 12, "distribution": {"angry": 0.5, "sad": 0.5}},
        {"id": "e", "audio": "e.wav", "speaker": "s1", "gender": "f"},
    )
    corpus = manifest.read(path)
    a, b, c, d, e = corpus.clips
    assert a.votes == (Vote("a", "angry"), Vote("a", "sad"))
    assert b.votes == (Vote("b", "angry", "r1"), Vote("b", "sad", "2"))
    assert [vote.label for vote in c.votes] == ["angry", "sad", "sad"]
    assert (d.id, d.speaker) == ("7", "12") and [vote.weight for vote in d.votes] == [0.5, 0.5]
    assert e.votes == ()
    assert corpus.dropped == {"manifest field that is not read": ["gender"]}


HEADER = "id,audio,speaker,votes"
GOOD = "a,a.wav,s1,angry;sad"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,audio,speeker,votes", GOOD], r'line 1: the column "speaker" is missing\. Did you mean "speeker"'),
        (["id;audio;speaker;votes", GOOD], "line 2 has 2 cells, the header has 4"),
        (["id,audio,speaker", "a,a.wav,s1"], 'line 1: a column "votes" or "distribution" is missing'),
        (["id,audio,speaker,votes,id", GOOD + ",x"], 'line 1: the column "id" stands there twice'),
        ([HEADER, GOOD, GOOD], 'line 3: the id "a" stands in line 2 already'),
        ([HEADER, GOOD, "b,b.wav,,angry"], 'line 3: "speaker" is missing'),
        ([HEADER, GOOD, "b,b.wav,s1"], "line 3 has 3 cells, the header has 4"),
        ([HEADER, "a,a.wav,s1,angry:-1;sad:2"], 'line 2: the count of "angry" is -1'),
        ([HEADER, "a,a.wav,s1,angry:1.5;sad:2"], 'line 2: the count of "angry" is 1.5.*distribution'),
        ([HEADER, "a,a.wav,s1,angry:x"], 'line 2: "x" in votes is not a number'),
        ([HEADER, "a,a.wav,s1,angry:nan"], 'line 2: the count of "angry" is nan'),
        ([HEADER, f"a,a.wav,s1,angry:{'9' * 5000}"], "line 2: .* in votes is not a number"),
        ([HEADER, "a,a.wav,s1,angry:1000000000"], "line 2: more than 10000 votes"),
        ([HEADER, "a,a.wav,s1,angry:2;sad"], 'line 2: "sad" in votes has no number'),
        ([HEADER, "a,a.wav,s1,angry:2;angry:1"], 'line 2: votes names "angry" twice'),
        ([HEADER, 'a,"a.wav,s1,angry'], "line 2 is not CSV"),
        ([HEADER], "describes no clip"),
        ([""], 'line 1: the column "audio" is missing'),
        ([HEADER, "a,a.wav,s1,"], "no clip in .* has a vote"),
        ([HEADER, "a,a.wav,s1,angry;Angry"], 'labels "Angry" and "angry" differ by case alone'),
        (["id,audio,speaker,split,votes", "a,a.wav,s1,tran,angry"], r'line 2: split is "tran"\. Did you mean "tra'),
        (["id,audio,speaker,distribution", "a,a.wav,s1,angry;sad"], "line 2: the distribution .* names no shares"),
        (["id,audio,speaker,distribution", "a,a.wav,s1,angry:0.5;sad:0.1"], "line 2: the distribution sums to 0.6"),
        (["id,audio,speaker,distribution", "a,a.wav,s1,angry:70;sad:30"], 'line 2: the share of "angry" is 70'),
        (["id,audio,speaker,votes,distribution", GOOD + ",angry:1"], "line 2 has votes and a distribution"),
    ],
)
def test_bad_csv_is_named(tmp_path, lines, message):
    path = csv_file(tmp_path, *lines)
    with pytest.raises(UserError, match=message) as error:
        manifest.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "is not a JSON object"),
        ('{"id": "a", "id": "b"}', '"id" stands twice'),
        (clip(id="\ud800"), "is not valid JSON .*surrogate"),
        (clip(speaker=None), '"speaker" is missing'),
        (clip(speaker=["s"]), r'"speaker" must be text, not \["s"\]'),
        (clip(votes=True), "votes must be a list"),
        (clip(votes=[3]), "3 is no label"),
        (clip(votes=[{"rater": "r"}]), "a vote is"),
        (clip(votes=[{"rater": "r", "label": "sad", "wieght": 1}]), "a vote is"),
        (clip(votes={"sad": True}), "count of .* is True"),
        (clip(votes={"sad": "2"}), "count of .* is '2'"),
        (clip(distribution={"sad": 1.0}), "has votes and a distribution"),
        (clip(votes=None, distribution=[1]), "distribution must be"),
        (clip(votes=None, distribution={"sad": float("nan")}), "share of .* is nan"),
        (clip(votes=None, distribution={"sad": 10**400}), "share of .* is 1000"),
    ],
)
def test_bad_jsonl_is_named(tmp_path, line, message):
    path = jsonl_file(tmp_path, clip(id="first"), line)
    with pytest.raises(UserError, match=message) as error:
        manifest.read(path)
    assert f"{path}, line 2" in str(error.value)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_lenient_counts_what_it_skips(tmp_path, form):
    if form == "csv":
        path = csv_file(tmp_path, HEADER, GOOD, "b,b.wav,s1", GOOD, ",x,,", "c,c.wav,s1,happy")
    else:
        path = jsonl_file(tmp_path, clip(), "{", clip(), {}, clip(id="c", votes=["happy"]))
    first = 2 if form == "csv" else 1
    corpus = manifest.read(path, lenient=True)
    assert [clip.id for clip in corpus.clips] == ["a", "c"]
    assert corpus.dropped == {UNREADABLE: [f"{path}, line {first + i}" for i in (1, 2, 3)]}


def test_a_csv_that_breaks_off_is_refused_even_so(tmp_path):
    """What follows an open quote cannot be told apart into lines."""
    with pytest.raises(UserError, match="line 4 is not CSV"):
        manifest.read(csv_file(tmp_path, HEADER, GOOD, 'b,"b.wav,s1,angry', GOOD), lenient=True)


KEEP = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@KEEP
@given(content=st.binary(max_size=200), form=st.sampled_from(["csv", "jsonl"]), lenient=st.booleans())
def test_random_bytes_give_no_traceback(tmp_path, content, form, lenient):
    path = tmp_path / f"m.{form}"
    good = f"{HEADER}\n{GOOD}\n" if form == "csv" else json.dumps(clip()) + "\n"
    for data in (content, good.encode() + content):
        path.write_bytes(data)
        try:
            corpus = manifest.read(path, lenient=lenient)
        except UserError as error:
            assert str(path) in str(error)
            continue
        known = {one.id: one.votes for one in corpus.clips}
        assert known.get("a", (Vote("a", "angry"), Vote("a", "sad")))[:1] == (Vote("a", "angry"),)


def test_which_file(tmp_path):
    with pytest.raises(UserError, match=r"neither manifest.csv nor manifest.jsonl"):
        manifest.read(tmp_path)
    csv_file(tmp_path, HEADER, GOOD)
    jsonl_file(tmp_path, clip())
    with pytest.raises(UserError, match=r"both manifest.csv and manifest.jsonl"):
        manifest.read(tmp_path)
    (tmp_path / "list.pdf").write_text("")
    with pytest.raises(UserError, match=r"is none of .csv"):
        manifest.read(tmp_path / "list.pdf")


def test_classes(tmp_path):
    path = csv_file(tmp_path, HEADER, "a,a.wav,s1,angry;sad;puzzled")
    assert read_corpus("manifest", path, ["sad", "angry"]).classes == ("sad", "angry")
    assert read_corpus("manifest", path).classes == ("angry", "puzzled", "sad")
    with pytest.raises(UserError, match=r'no vote in manifest is for class "angy"\. Did you mean "angry"\?'):
        read_corpus("manifest", path, ["angy", "sad"])


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(f"{HEADER}\n{GOOD}\n".encode() + "b,b.wav,s1,müde\n".encode("latin-1"))
    with pytest.raises(UserError, match="line 3 is not UTF-8"):
        manifest.read(path)
