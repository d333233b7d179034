"""Replies of servers, usual and hostile ones: an answer, a failed answer, or no completion."""

import json

import pytest
from chat_server import completion
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.annotation.engines.interface import Answer
from aer_jax.annotation.engines.served.completions import (
    MESSAGE_CHARS,
    error_code,
    error_message,
    one_line,
    read_completion,
)
from aer_jax.labels.parsing import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

LABELS = ["sad", "angry"]


def read(body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_completion(content, lambda text: parse(text, LABELS) is not None)


def cut(content, **message):
    reply = completion(content, **message)
    reply["choices"][0]["finish_reason"] = "length"
    return reply


@pytest.mark.parametrize(
    ("body", "response", "label"),
    [
        (completion("Sad."), "Sad.", "sad"),
        (completion([{"type": "text", "text": "Sa"}, {"type": "text", "text": "d."}]), "Sad.", "sad"),
        (completion(["Sad"]), "Sad", "sad"),
        (completion([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Sad"}]), "Sad", "sad"),
        (completion("<think>angry? no.</think>\n\nSad"), "<think>angry? no.</think>\n\nSad", "sad"),
        (completion("angry? no.</think>Sad"), "angry? no.</think>Sad", "sad"),
        (completion("<think>a</think><think>b</think>Sad"), "<think>a</think><think>b</think>Sad", "sad"),
        (completion("Sad", reasoning_content="It is slow and low."), "Sad", "sad"),
        (cut("Sad"), "Sad", "sad"),
        (completion("<think>sad</think>not angry"), "<think>sad</think>not angry", None),
        (completion(None, refusal="I can't."), "I can't.", None),
        (completion([], refusal="I can't."), "I can't.", None),
        (completion(None), "", None),
        (completion(None, refusal=5), "", None),
    ],
)
def test_answers(body, response, label):
    answer = read(body)
    assert answer == Answer(response=response)
    assert parse(answer.response, LABELS) == label


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (cut(None), "cut off by its length before a label"),
        (cut(""), "cut off by its length"),
        (cut("  \n"), "cut off by its length"),
        (cut("Okay, the user wants"), "cut off by its length"),
        (cut(None, reasoning_content="It is slow and"), "cut off by its length"),
        (completion(None, reasoning_content="It is slow."), "nothing but thinking; allow more"),
        (completion(None, reasoning="It is slow."), "nothing but thinking; allow more"),
        (cut("<think>It is sad and"), "cut off by its length"),
        (completion("\n<think>sad"), "nothing but thinking;"),
        (cut("<think>It is</think>"), "cut off by its length"),
        (completion("<think>It is</think>"), "nothing but thinking;"),
        (completion("a</think><think>b"), "nothing but thinking;"),
    ],
)
def test_thinking_without_an_answer_has_failed(body, words):
    answer = read(body)
    assert words in answer.error and "--request max_tokens=2048" in answer.error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<h1>Welcome</h1>",
        b'{"choices": [{"mess',
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"null",
        [],
        {},
        {"choices": None},
        {"choices": []},
        {"choices": {}},
        {"choices": [None]},
        {"choices": ["Sad"]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "Sad"}]},
        {"choices": [{"text": "Sad"}]},
        {"choices": [{"message": {"content": {"label": "sad"}}}]},
        {"choices": [{"message": {"content": 5}}]},
        {"choices": [{"message": {"content": [5]}}]},
        {"choices": [{"message": {"content": [{"type": "image_url"}]}}]},
        {"error": {"message": "busy"}},
    ],
    ids=repr,
)
def test_what_is_no_completion(body):
    with pytest.raises(ValueError):
        read(body)


def set_somewhere(reply, path, value):
    node = reply
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return reply


@given(
    JSON,
    st.sampled_from(
        [("choices",), ("choices", 0), ("choices", 0, "message"), ("choices", 0, "message", "content"), ("usage",),
         ("choices", 0, "finish_reason"), ("choices", 0, "message", "refusal"),
         ("choices", 0, "message", "reasoning_content")],
    ),
)  # fmt: skip
def test_any_value_at_any_depth(value, path):
    try:
        answer = read(set_somewhere(completion("Sad"), path, value))
    except ValueError:
        return
    assert isinstance(answer.response, str)


@given(JSON)
def test_errors_of_any_form(value):
    content = json.dumps(value).encode()
    assert isinstance(error_message(content), str) and isinstance(error_code(content), str)
    line = one_line(error_message(content), "sk-secret")
    assert line.isprintable() and len(line) <= MESSAGE_CHARS + 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no model m", "code": 404}}', "no model m"),
        (b'{"object": "error", "message": "no model m"}', "no model m"),
        (b'{"error": "no model m"}', "no model m"),
        (b'{"detail": "no model m"}', "no model m"),
        (b'{"detail": [{"loc": ["body", "top_k"]}]}', '{"detail": [{"loc": ["body", "top_k"]}]}'),
        (b"<h1>busy</h1>", "<h1>busy</h1>"),
    ],
)
def test_messages_of_errors(body, message):
    assert error_message(body) == message


def test_a_servers_words_are_short_printable_and_without_the_key():
    assert one_line("bad key sk-secret\n\x1b[31m\x00red", "sk-secret") == "bad key [key] [31m red"
    assert one_line("EMPTY is empty", "EMPTY") == "EMPTY is empty"
    assert one_line("a" * 10_000_000, "sk-secret") == "a" * MESSAGE_CHARS + " ..."
    assert "sk-secret" not in one_line("x" * (MESSAGE_CHARS - 3) + "sk-secret", "sk-secret")
    assert "sk-se" not in one_line("x" * (MESSAGE_CHARS - 3) + "sk-secret", "sk-secret")


@pytest.mark.parametrize(
    ("body", "why"),
    [(b'"' + b"a" * 2**20, "it is longer than 1 MB"), (b"<html>", "it is no JSON"), (b"", "it is no JSON")],
)
def test_what_is_no_completion_is_said_in_words_of_our_own(body, why):
    with pytest.raises(ValueError, match=why):
        read_completion(body, lambda text: True)
