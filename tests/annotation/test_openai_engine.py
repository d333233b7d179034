"""The openai engine against a real HTTP server on this machine that misbehaves in every way a server does."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from chat_server import Server, completion, heard, slowly

from aer_jax.annotation.annotate import annotate
from aer_jax.annotation.engines.interface import Question
from aer_jax.annotation.engines.served import openai_engine
from aer_jax.annotation.engines.served.openai_engine import OpenAIEngine
from aer_jax.annotation.listeners import crossed
from aer_jax.errors import UserError
from aer_jax.labels.journal import read_journal


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(scope="module")
def people(task):
    return crossed(2, task.prompt.personas)


def answers(task, people, behave, **options):
    """{pair: answer} of all pairs, and the server."""
    with Server(behave).running() as server:
        engine = OpenAIEngine("m", task, base_url=server.url, **{"retries": 2} | options)
        asked = [Question(id, person) for id in task.dataset.utterances for person in people]
        return {pair: answer for some in engine.ask(asked) for pair, answer in some}, server


def good(*_):
    return 200, {}, completion("Sad.")


def first_time(trouble):
    """Trouble with each question's first request, a good answer to its second."""
    met = Counter()

    def behave(server, number, request):
        met[request["seed"]] += 1
        return trouble(server, number, request) if met[request["seed"]] == 1 else good()

    return behave


def test_what_is_sent(task, people):
    found, server = answers(task, people, good)
    assert len(found) == len(server.requests) == 12
    by_seed = {request["seed"]: request for request in server.requests}
    for pair in found:
        request = by_seed[pair.listener.seed(pair.utterance)]
        system, user = task.messages(pair.utterance, pair.listener.persona)
        assert request["model"] == "m" and request["temperature"] == pair.listener.temperature
        assert request["messages"][0] == system
        assert [part["type"] for part in request["messages"][1]["content"]] == ["text", "input_audio"]
        assert request["messages"][1]["content"][0] == user["content"][0]
        samples, rate = heard(request)
        assert rate == 16_000
        np.testing.assert_allclose(samples, task.dataset.audio(pair.utterance), atol=2**-15)
    assert {a.response for a in found.values()} == {"Sad."}
    assert server.most <= 8


@pytest.mark.parametrize(
    "trouble",
    [
        lambda *_: (429, {"Retry-After": "0.05"}, {"error": {"message": "slow down"}}),
        lambda *_: (500, {}, {"error": {"message": "oops"}}),
        lambda *_: (503, {"Content-Type": "text/html"}, b"<h1>busy</h1>"),
        lambda *_: (200, {}, None),
        lambda *_: (200, {}, b'{"choices": [{"mess'),
        lambda *_: (200, {"Content-Type": "text/html"}, b"<h1>Welcome to our proxy</h1>"),
        lambda *_: (200, {}, {"choices": []}),
        lambda *_: (200, {}, {"choices": [{"message": {"content": {"label": "sad"}}}]}),
        lambda *_: slowly(0.6, good()),
    ],
    ids=["429", "500", "503", "cut", "half JSON", "HTML", "no choice", "content is no text", "slow"],
)
def test_trouble_that_passes(task, people, trouble, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    found, _ = answers(task, people, first_time(trouble), timeout=0.4)
    assert [answer.response for answer in found.values()] == ["Sad."] * 12, [a.error for a in found.values()]


def test_retry_after_is_respected(task, people):
    times = {}

    def behave(server, number, request):
        import time

        times.setdefault(request["seed"], []).append(time.monotonic())
        return (429, {"Retry-After": "0.7"}, {}) if len(times[request["seed"]]) == 1 else good()

    answers(task, people[:1], behave, concurrency=6)
    assert all(len(two) == 2 and two[1] - two[0] >= 0.69 for two in times.values())


def test_trouble_that_stays_is_this_questions_error(task, people, tmp_path, monkeypatch):
    """Bounded tries; the others are answered; the journal has both, and the next run asks for the rest."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    unlucky = people[1].seed(next(iter(task.dataset.utterances)))

    def behave(server, number, request):
        if request["seed"] != unlucky:
            return good()
        return [(500, {}, {}), (200, {}, None), (200, {}, b"nonsense")][number % 3]

    with Server(behave).running() as server:
        engine = OpenAIEngine("m", task, base_url=server.url, retries=2, concurrency=2)
        summary = annotate(task, engine, people, tmp_path / "j")
        assert (summary["labelled"], summary["failed"]) == (11, 1)
        tries = sum(request["seed"] == unlucky for request in server.requests)
        assert 3 <= tries <= 3 * openai_engine.NONSENSE and server.most <= 2
    with Server(good).running() as server:
        engine = OpenAIEngine("m", task, base_url=server.url)
        assert annotate(task, engine, people, tmp_path / "j")["labelled"] == 12
        assert len(server.requests) == 1
    assert [a.outcome for a in read_journal(tmp_path / "j")].count("failed") == 1


@pytest.mark.parametrize(
    ("body", "response"),
    [
        (completion("I'm sorry, I can't help with that."), "I'm sorry, I can't help with that."),
        (completion(None, refusal="I can't judge voices."), "I can't judge voices."),
        (completion(None), ""),
        (completion("not sad"), "not sad"),
    ],
)
def test_refusals_are_unparsed_and_kept(task, people, tmp_path, body, response):
    with Server(lambda *_: (200, {}, body)).running() as server:
        engine = OpenAIEngine("m", task, base_url=server.url)
        summary = annotate(task, engine, people, tmp_path / "j")
    assert (summary["unparsed"], summary["unparsed_share"], summary["failed"]) == (12, 1.0, 0)
    assert {a.response for a in read_journal(tmp_path / "j")} == {response}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, {"message": "bad key sk-secret"}, r"refuses: .*bad key \[key\].*check model, key and --base-url"),
        (404, {"message": "no model m"}, "refuses: .*no model m"),
        (429, {"message": "pay first", "code": "insufficient_quota"}, "no credit left"),
    ],
)
def test_what_concerns_every_question_ends_the_run(task, people, tmp_path, monkeypatch, status, error, words):
    """The answers before it are in the journal, the key is in no message."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def behave(server, number, request):
        return good() if number < 4 else (status, {}, {"error": error})

    with Server(behave).running() as server:
        engine = OpenAIEngine("m", task, base_url=server.url, concurrency=1, retries=0)
        with pytest.raises(UserError, match=words) as refusal:
            annotate(task, engine, people, tmp_path / "j")
    assert "sk-secret" not in str(refusal.value) and server.keys == {"Bearer sk-secret"}
    assert len(read_journal(tmp_path / "j")) == 4


def test_a_server_that_is_not_there(task, people, tmp_path):
    engine = OpenAIEngine("m", task, base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(UserError, match=r"127\.0\.0\.1 cannot be reached .*check --base-url"):
        annotate(task, engine, people, tmp_path / "j")


def test_audio_leaves_the_machine_only_knowingly(task, monkeypatch, capsys):
    licensed = replace(task, dataset=replace(task.dataset, name="iemocap", licensed=True))
    OpenAIEngine("m", licensed, base_url="http://localhost:1/v1")  # stays here
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    away = "https://api.example.com/v1"
    with pytest.raises(UserError, match=r"licence of iemocap forbids.*api\.example\.com.*--send-licensed-audio"):
        OpenAIEngine("m", licensed, base_url=away)
    with pytest.raises(UserError, match=r"api\.openai\.com"):
        OpenAIEngine("m", licensed)
    OpenAIEngine("m", licensed, base_url=away, send_licensed=True)
    assert "licensed audio of iemocap" in capsys.readouterr().err
    OpenAIEngine("m", task, base_url=away)
    assert "audio of toy, and its words where they are asked about, go to api.example.com" in capsys.readouterr().err


def test_what_is_missing_is_said(task, monkeypatch):
    with pytest.raises(UserError, match="--base-url, or set OPENAI_API_KEY"):
        OpenAIEngine("m", task)
    with pytest.raises(UserError, match=r"set OPENAI_API_KEY to the key of https://api\.example\.com"):
        OpenAIEngine("m", task, base_url="https://api.example.com/v1")
    for wrong in ({"concurrency": 0}, {"timeout": 0}):
        with pytest.raises(UserError, match="--concurrency must be"):
            OpenAIEngine("m", task, base_url="http://localhost:1/v1", **wrong)
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'aer-jax\[openai\]'"):
        OpenAIEngine("m", task, base_url="http://localhost:1/v1")
