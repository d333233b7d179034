"""The journal survives a kill at any byte, is never mixed, and becomes votes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote
from aer_jax.proxies.journal import Attempt, Journal, read_journal, read_votes

CLASSES = ("angry", "happy", "neutral", "sad")


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
    always = {"utterance", "listener", "persona", "temperature", "seed", "prompt", "model", "response"}
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
        assert journal.attempts == written[:kept]
        assert bool(journal.repaired) == (cut > 0 and content[cut - 1 : cut] != b"\n")
        journal.append([attempt("last")])
    assert read_journal(path) == [*written[:kept], attempt("last")]


def test_latest_attempt_counts(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "m", "p") as journal:
        journal.append([failed(), failed("u1"), attempt(label=None)])
        assert {key: a.answered for key, a in journal.latest().items()} == {("u0", 0): True, ("u1", 0): False}


@pytest.mark.parametrize(("model", "prompt", "message"), [("n", "p", "model m"), ("m", "q", "prompt p")])
def test_other_model_or_prompt_is_refused(tmp_path, model, prompt, message):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "m", "p") as journal:
        journal.append([attempt()])
    with pytest.raises(UserError, match=f"begun with {message}"):
        Journal(path, model, prompt)
    with Journal(path, "m", "p"):  # the refusal left it closed
        pass


def test_two_writers_are_refused(tmp_path):
    with (
        Journal(tmp_path / "j", "m", "p"),
        pytest.raises(UserError, match="another annotation is writing"),
    ):
        Journal(tmp_path / "j", "m", "p")


def test_votes_are_the_labelled_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "m", "p") as journal:
        journal.append([failed(), attempt(), attempt("u0", 1, "angry"), attempt("u1", 0, None)])
    assert read_votes(path, CLASSES) == [
        Vote("u0", "sad", rater="m#0", source="m"),
        Vote("u0", "angry", rater="m#1", source="m"),
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
        ("", "line 2 is not a line"),
        ('{"utterance": "a"}', "line 2 is not a line"),
        ('{"surprise": 1}', "line 2 is not a line"),
        (json.dumps({"listener": "0"}), "listener is '0'"),
        (json.dumps({"outcome": "lost", "label": None}), "either a label or the outcome"),
        (json.dumps({"outcome": "failed"}), "either a label or the outcome"),
    ],
)
def test_damaged_lines_are_named(tmp_path, line, message):
    path = tmp_path / "journal.jsonl"
    good = vars(attempt())
    if message[:4] != "line":
        line = json.dumps(good | json.loads(line))
    path.write_text(f"{json.dumps(good)}\n{line}\n{json.dumps(good)}\n")
    with pytest.raises(UserError, match=message):
        read_journal(path)
    with pytest.raises(UserError, match=message):
        Journal(path, "m", "p")
