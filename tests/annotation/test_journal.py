"""The journal survives a kill at any byte, takes several writers, is never mixed, and becomes votes."""

import errno
import fcntl
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.errors import UserError
from aer_jax.labels.journal import SYNC_LINES, SYNC_SECONDS, Attempt, Journal, read_journal, read_votes
from aer_jax.labels.votes import Vote

CLASSES = ("angry", "happy", "neutral", "sad")
FIELDS = [field.name for field in fields(Attempt)]


def attempt(utterance="u0", listener=0, label="sad", **changes):
    values = {"persona": "Go by tone.", "temperature": 0.5, "seed": 7, "prompt": "p", "model": "m"}
    values |= {"response": label or "hm", "label": label, "outcome": None if label else "unparsed"} | changes
    return Attempt(utterance=utterance, listener=listener, **values)


def failed(utterance="u0", listener=0):
    return attempt(utterance, listener, None, response="", outcome="failed", error="no memory")


def test_round_trip_and_line_format(tmp_path):
    path = tmp_path / "deep" / "journal.jsonl"
    written = [attempt(), attempt("ü", 1, None, response="a\nb\u2028é"), failed("u1")]
    with Journal(path, "m", "p") as journal:
        journal.append(written[:1])
        journal.append(written[1:])
    assert read_journal(path) == written
    lines = [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
    always = {"utterance", "listener", "persona", "temperature", "seed", "prompt", "model", "response", "answers"}
    assert [set(line) - always for line in lines] == [{"label"}, {"outcome"}, {"outcome", "error"}]
    assert [line.get("outcome") for line in lines] == [None, "unparsed", "failed"]


@given(st.data())
def test_a_kill_at_any_byte_loses_only_the_line_being_written(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    written = [attempt(f"é{i}", label=data.draw(st.sampled_from(CLASSES))) for i in range(3)]
    with Journal(path, "m", "p") as journal:
        journal.append(written)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    with Journal(path, "m", "p") as journal:
        # A line that lacks nothing but its newline is kept.
        kept = whole + (content[cut : cut + 1] == b"\n" and cut > 0)
        assert read_journal(path) == written[:kept] and journal.answered == {a.key for a in written[:kept]}
        assert bool(journal.repaired) == (cut > 0 and content[cut - 1 : cut] != b"\n")
        journal.append([attempt("last")])
    assert read_journal(path) == [*written[:kept], attempt("last")]


def test_failures_are_counted_and_answers_remembered(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "m", "p") as journal:
        journal.append([failed(), failed("u1"), attempt(label=None), failed("u1")])
        now = journal.answered, journal.failures, journal.listeners
    assert now == ({("u0", 0)}, {("u0", 0): 1, ("u1", 0): 2}, {0: ("Go by tone.", 0.5)})
    with Journal(path, "m", "p") as journal:
        assert (journal.answered, journal.failures, journal.listeners) == now


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"model": "n"}, "model m"), ({"prompt": "q"}, "prompt p"), ({"answers": "exact"}, "answers free")],
)
def test_another_model_prompt_or_kind_of_answers_is_refused(tmp_path, changed, message):
    path = tmp_path / "journal.jsonl"
    late = Journal(path, **({"model": "m", "prompt": "p"} | changed))
    with Journal(path, "m", "p") as journal:
        journal.append([attempt()])
    with pytest.raises(UserError, match=f"begun with {message}"):
        Journal(path, **({"model": "m", "prompt": "p"} | changed))
    # Who was there before the first line finds out when it writes its own.
    with late, pytest.raises(UserError, match=f"begun with {message}"):
        late.append([attempt("u1")])
    assert read_journal(path) == [attempt()]
    with Journal(path, "m", "p"):  # the refusal left it closed
        pass


def test_two_writers_share_one_journal(tmp_path):
    path = tmp_path / "j"
    with Journal(path, "m", "p") as one, Journal(path, "m", "p") as other:
        assert one.append([attempt()]) == [attempt()]
        assert other.append([attempt(label="angry"), failed(), attempt("u1")]) == [attempt("u1")]  # u0 is answered
        with path.open("ab") as file:
            file.write(b'{"utterance": "a third writer was kil')
        assert one.append([attempt("u1"), attempt("u2")]) == [attempt("u2")]
        assert one.repaired == ['{"utterance": "a third writer was kil'] and not other.repaired
    assert read_journal(path) == [attempt(), attempt("u1"), attempt("u2")]


WRITERS = """
import sys
from aer_jax.labels.journal import Attempt, Journal
with Journal(__import__("pathlib").Path(sys.argv[1]), "m", "p") as journal:
    for i in range(200):  # every pair is answered by all writers, one of them is first
        journal.append([Attempt(f"u{i}", l, "P", 0.5, 1, "p", "m", sys.argv[2] * 40, "sad") for l in range(2)])
"""


def test_writers_at_the_same_time_answer_each_pair_once(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITERS, tmp_path / "j", name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    attempts = read_journal(tmp_path / "j")
    assert len(attempts) == len({a.key for a in attempts}) == 400


def test_synced_after_so_many_lines_or_so_long(tmp_path, monkeypatch):
    """fsync is called at the latest for the 256th line, and for the first after two seconds."""
    synced, clock = [], [0.0]
    monkeypatch.setattr("aer_jax.labels.journal.os.fsync", lambda file: synced.append(clock[0]))
    monkeypatch.setattr("aer_jax.labels.journal.time.monotonic", lambda: clock[0])
    with Journal(tmp_path / "j", "m", "p") as journal:
        journal.append([attempt(f"u{i}") for i in range(SYNC_LINES - 1)])
        assert synced == []
        journal.append([attempt("a")])
        assert synced == [0.0]
        journal.append([attempt("b")])
        clock[0] = SYNC_SECONDS
        assert synced == [0.0]
        journal.append([attempt("c")])
        assert synced == [0.0, SYNC_SECONDS]
    assert len(synced) == 3


def test_a_distribution_is_one_vote_in_shares(tmp_path):
    path, probs = tmp_path / "journal.jsonl", {"angry": 0.25, "happy": 0.75, "neutral": 0.0}
    exact = attempt(label=None, response="", outcome=None, answers="exact", probs=probs)
    with Journal(path, "m", "p", "exact") as journal:
        journal.append([exact])
        assert journal.answered == {exact.key}
    assert read_journal(path) == [exact]
    votes = read_votes(path, CLASSES)
    assert list(votes) == [
        Vote("u0", "angry", rater="0", weight=0.25, source="m"),
        Vote("u0", "happy", rater="0", weight=0.75, source="m"),
    ]
    with pytest.raises(UserError, match=r"label .happy. is none of angry, sad"):
        read_votes(path, ("angry", "sad"))


def test_votes_are_the_labelled_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "m", "p") as journal:
        journal.append([failed(), attempt(), attempt("u0", 1, "angry"), attempt("u1", 0, None)])
    assert list(read_votes(path, CLASSES)) == [
        Vote("u0", "sad", rater="0", source="m"),
        Vote("u0", "angry", rater="1", source="m"),
    ]


def test_wrong_votes_name_their_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "m", "p") as journal:
        journal.append([attempt(), attempt("u1"), attempt()])
    with pytest.raises(UserError, match=r"line 3: a second answer of listener 0 about u0"):
        read_votes(path, CLASSES)
    with pytest.raises(UserError, match=r"line 1: the label .sad. is none of angry, bad"):
        read_votes(path, ("angry", "bad"))
    with pytest.raises(UserError, match="cannot be read"):
        read_votes(tmp_path / "none.jsonl", CLASSES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not a line of an annotation journal"),
        ('{"label": "sad", "label": "happy"}', "line 2 is not a line"),
        ("", "line 2 is not a line"),
        ('{"utterance": "a"}', "line 2 is not a line"),
        ('{"surprise": 1}', "line 2 is not a line"),
        (json.dumps({"listener": "0"}), "listener is '0'"),
        (json.dumps({"outcome": "lost", "label": None}), "either a label, or probs, or the outcome"),
        (json.dumps({"outcome": "failed"}), "either a label, or probs, or the outcome"),
        (json.dumps({"probs": {"sad": 1}}), "either a label, or probs, or the outcome"),
        (json.dumps({"probs": {"sad": 0.9}, "label": None}), "shares of the labels"),
        (json.dumps({"probs": {"sad": 2, "angry": -1}, "label": None}), "shares of the labels"),
        (json.dumps({"probs": "sad", "label": None}), "shares of the labels"),
        (json.dumps({"answers": "loud"}), "answers is 'loud'"),
    ],
)
def test_damaged_lines_are_named(tmp_path, line, message):
    path = tmp_path / "journal.jsonl"
    good = asdict(attempt())
    if message[:4] != "line":
        line = json.dumps(good | json.loads(line))
    path.write_text(f"{json.dumps(good)}\n{line}\n{json.dumps(good)}\n")
    with pytest.raises(UserError, match=message):
        read_journal(path)
    with pytest.raises(UserError, match=message):
        Journal(path, "m", "p")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
DEEP = b"[" * 10_000 + b"]" * 10_000


@given(JSON | st.builds(lambda field, value: asdict(attempt()) | {field: value}, st.sampled_from(FIELDS), JSON))
def test_lines_of_any_type_are_an_attempt_or_one_sentence(tmp_path_factory, value):
    line = json.dumps(value).encode()
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(line + b"\n")
    try:
        [read] = read_journal(path)
        votes = read_votes(path, CLASSES)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert (read.utterance, len(votes) > 0) == (value["utterance"], bool(read.shares))
        path.write_bytes(read.line().encode())
        assert read_journal(path)[0].key == read.key


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (DEEP, "line 2 is not a line"),
        (b'{"utterance": ' + DEEP + b"}", "line 2 is not a line"),
        (b"[]", "line 2 is not a line"),
        (b'"text"', "line 2 is not a line"),
        (b"7", "line 2 is not a line"),
        (b"\xff\xfe{", "line 2 is not a line"),
        (b"1" * 5000, "line 2 is not a line"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": 10**400}, "temperature is 1000"),
        ({"temperature": None}, "temperature is None"),
        ({"listener": True}, "listener is True"),
        ({"listener": 0.5}, "listener is 0.5"),
        ({"seed": [[[1]]]}, r"seed is \[\[\[1"),
        ({"label": ["sad"]}, r"label is \['sad'\]"),
        ({"label": {}}, "label is {}"),
        ({"model": 5}, "model is 5"),
        ({"error": 5}, "error is 5"),
        ({"utterance": None}, "utterance is None"),
        ({"answers": []}, r"answers is \[\]"),
        ({"outcome": {}, "label": None}, "either a label, or probs, or the outcome"),
        ({"probs": {"sad": math.nan}, "label": None}, "shares of the labels"),
        ({"probs": {"sad": 10**400}, "label": None}, "shares of the labels"),
        ({"probs": {"sad": True}, "label": None}, "shares of the labels"),
        ({"probs": {"sad": {"sad": 1}}, "label": None}, "shares of the labels"),
        ({"probs": {}, "label": None}, "shares of the labels"),
    ],
)
def test_a_line_that_is_no_attempt_is_named(tmp_path, line, message):
    path = tmp_path / "journal.jsonl"
    good = asdict(attempt())
    line = line if isinstance(line, bytes) else json.dumps(good | line).encode()
    content = json.dumps(good).encode() + b"\n" + line + b"\n"
    path.write_bytes(content)
    for read in (read_journal, lambda path: read_votes(path, CLASSES), lambda path: Journal(path, "m", "p")):
        with pytest.raises(UserError, match=message) as refusal:
            read(path)
        assert len(str(refusal.value)) < 400
    assert path.read_bytes() == content


def test_line_separators_of_unicode_and_half_surrogates_end_no_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    odd = [attempt(f"u{n}", response=f"sad{c}") for n, c in enumerate("\u2028\u2029\x85\x0b\x0c\x1c\0")]
    with Journal(path, "m", "p") as journal:
        journal.append([*odd, attempt("half", response="\ud83d")])
        assert len(read_journal(path)) == 8
    assert read_journal(path)[:-1] == odd and read_journal(path)[-1].response == "?"


def test_a_last_line_without_its_newline(tmp_path):
    """As an editor or a script leaves it, it counts; as a writer that is at work leaves it, not yet."""
    path = tmp_path / "journal.jsonl"
    path.write_text(attempt().line() + attempt("u1").line().rstrip("\n"))
    assert read_journal(path) == [attempt(), attempt("u1")]
    path.write_text(attempt().line() + attempt("u1").line()[:40])
    assert read_journal(path) == [attempt()]


def test_tokens_of_any_type_in_old_journals_are_read(tmp_path):
    """An earlier version wrote what a server had counted, whatever its type."""
    path = tmp_path / "journal.jsonl"
    path.write_text(json.dumps(asdict(attempt()) | {"tokens_in": "12", "tokens_out": 1.5}) + "\n")
    assert len(read_votes(path, CLASSES)) == 1


@pytest.mark.parametrize(
    "content", [b"my notes", b'{"id": "u0", "label": "sad"}\n{"id"', b"a,b\n1,2", b"RIFF\0\0", b"5", DEEP]
)
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path, content):
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(UserError, match="line 1 is not a line of an annotation journal"):
        Journal(path, "m", "p")
    assert path.read_bytes() == content


def test_what_a_power_cut_leaves_is_repaired(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = attempt().line().encode()
    for torn in (b"\0" * 100, b"{", b'{"utterance": ' + b"[" * 10_000, whole[:50] + b"\0" * 20):
        path.write_bytes(whole + torn)
        with Journal(path, "m", "p") as journal:
            assert len(journal.repaired) == 1
        assert path.read_bytes() == whole


def test_a_long_name_in_a_journal_makes_no_long_sentence(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(attempt(model="m\n" * 5000).line())
    with pytest.raises(UserError, match="was begun with model m m m") as error:
        Journal(path, "m", "p")
    assert len(str(error.value)) < 700 and "\n" not in str(error.value)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    def flock(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"the file system of the journal .*j\.jsonl locks no files"):
        Journal(tmp_path / "j.jsonl", "m", "p")
