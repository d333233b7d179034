"""Servers that refuse, stall, flood and lie: failed answers, one sentence, nothing lost, no end of questions."""

import email.utils
import gzip
import io
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from chat_server import Server, completion

from aer_jax import cli
from aer_jax.annotation.annotate import HOPELESS, annotate
from aer_jax.annotation.engines.served import openai_engine
from aer_jax.annotation.engines.served.http_client import BODY_BYTES, retry_after
from aer_jax.annotation.engines.served.openai_engine import OpenAIEngine
from aer_jax.annotation.listeners import crossed
from aer_jax.errors import Unfinished, UserError
from aer_jax.labels.journal import read_journal


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(openai_engine, "FIRST_DELAY", 0.01)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "j"


def run(task, behave, out, listeners=2, **options):
    """The summary of an annotation, and the server that was asked."""
    with Server(behave).running() as server:
        engine = OpenAIEngine("m", task, base_url=server.url, **{"retries": 1} | options)
        return annotate(task, engine, crossed(listeners, task.prompt.personas), out), server


def good(*_):
    return 200, {}, completion("Sad.")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, {"error": {"message": "Unsupported parameter: 'max_tokens'"}}, "HTTP 400: Unsupported parameter"),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "extra"}]}, r'HTTP 422: {"detail": \[{"loc": \["body", "se'),
        (413, b"<h1>too large</h1>", "HTTP 413: <h1>too large</h1>"),
        (500, {"error": {"message": "no audio here"}}, "HTTP 500: no audio here"),
        (200, {"error": {"message": "busy"}}, "no chat completion: .*busy"),
        (200, b"<h1>Welcome</h1>", "no chat completion: .*Welcome"),
        (200, completion("<think>sad"), "nothing but thinking; allow more"),
    ],
)
def test_what_is_refused_alike_from_the_start_ends_the_run(task, out, status, body, words):
    """Not every question is asked until its attempts are used up: none of these counts as one."""
    for _ in range(4):
        with pytest.raises(UserError, match=rf"refuses every question alike, the first 3 with: {words}"):
            run(task, lambda *_: (status, {}, body), out)
    assert read_journal(out) == []
    _, server = run(task, good, out)
    assert len(server.requests) == 12


def test_few_requests_are_made_of_a_server_that_refuses(task, out):
    requests = []

    def refuse(server, number, request):
        requests.append(request)
        return 400, {}, {"error": {"message": f"request {number} was bad, req-{number:x}a"}}

    with pytest.raises(UserError, match="refuses every question alike"):
        run(task, refuse, out, listeners=20)
    assert len(requests) == 3


def test_rc_2_and_the_body_of_the_error(task, out, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")

    def refuse(server, number, request):
        said = "max_tokens is not supported, use max_completion_tokens; your key sk-very-secret " + "x" * 5000
        return (
            (200, {}, completion("sad"))
            if "max_completion_tokens" in request
            else (400, {}, {"error": {"message": said}})
        )

    with Server(refuse).running() as server:
        words = ["annotate", "--data", task.dataset.path, "--model", "m", "--out", out, "--engine", "openai"]
        words = [*map(str, words), "--base-url", server.url, "--listeners", "1"]
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert "max_tokens is not supported, use max_completion_tokens; your key [key]" in error
        assert "sk-very-secret" not in error and len(error) < 1000 and "Traceback" not in error
        assert cli.main([*words, "--request", "max_tokens=max_completion_tokens,seed="]) == 0
        [request] = [request for request in server.requests if "max_completion_tokens" in request][:1]
        assert "max_tokens" not in request and "seed" not in request
    assert {attempt.request for attempt in read_journal(out)} == {"max_tokens=max_completion_tokens,seed="}
    assert "sk-very-secret" not in out.read_text()


def test_one_clip_that_is_refused_is_its_own_failure(task, out):
    """Even if it is the first one: the server is tried with others before it is given up."""
    first = next(iter(task.dataset.utterances))
    seeds = {person.seed(first) for person in crossed(5, task.prompt.personas)}

    def behave(server, number, request):
        return (400, {}, {"error": {"message": "too long"}}) if request["seed"] in seeds else good()

    summary, _ = run(task, behave, out, listeners=5)
    assert (summary["labelled"], summary["failed"]) == (25, 5)
    for _ in range(2):  # what is left counts, so that the annotation comes to an end
        with pytest.raises(UserError, match="all 5 questions failed, the first with: HTTP 400: too long"):
            run(task, behave, out, listeners=5)
    summary, server = run(task, behave, out, listeners=5)
    assert (summary["given_up"], summary["asked"], server.requests) == (5, 0, [])


def test_a_server_that_fails_from_some_moment_on_is_given_up(task, out):
    with pytest.raises(
        UserError, match=rf"failed {HOPELESS} times without an answer in between, at last with: HTTP 500"
    ):
        run(task, lambda _, n, __: good() if n < 10 else (500, {}, {}), out, listeners=20, retries=0, concurrency=1)
    outcomes = [attempt.outcome for attempt in read_journal(out)]
    assert outcomes == [None] * 10 + ["failed"] * HOPELESS


def test_sampling_is_that_of_the_other_engines(task, out):
    _, server = run(task, good, out)
    sent = [
        {name: request[name] for name in ("top_p", "top_k", "min_p", "repetition_penalty")}
        for request in server.requests
    ]
    assert sent == [{"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}] * 12


def test_fields_that_a_server_does_not_know_are_left_out_and_it_is_said(task, out, capsys):
    """As OpenAI's own server and `transformers serve` refuse them."""

    def behave(server, number, request):
        if unknown := {"top_k", "min_p", "repetition_penalty"} & set(request):
            return 422, {}, {"detail": f"Unexpected fields in the request: {unknown}"}
        return good()

    summary, server = run(task, behave, out)
    assert summary["labelled"] == 12 and len(server.requests) <= 12 + 3
    assert capsys.readouterr().err.count("does not take top_k, min_p, repetition_penalty: they are left out") == 1
    assert {attempt.request for attempt in read_journal(out)} == {"top_k=,min_p=,repetition_penalty="}


def flood(connection):
    for _ in range(200):
        connection.sendall(b" " * (1 << 20))


def drip(connection):
    for _ in range(400):
        connection.sendall(b" ")
        time.sleep(0.05)


def reset(connection):
    connection.sendall(b'{"cho')
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def bomb():
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb") as stream:
        for _ in range(300):
            stream.write(bytes(1 << 20))
    return file.getvalue()


BOMB = bomb()


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: (200, {}, flood),
        lambda: (500, {}, flood),
        lambda: (200, {}, drip),
        lambda: (400, {}, drip),
        lambda: (200, {}, reset),
        lambda: (200, {"Content-Encoding": "gzip"}, BOMB),
        lambda: (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        lambda: (200, {"Content-Encoding": "br"}, b"\x8b"),
        lambda: (200, {"Content-Length": "5"}, b'{"choices": []}'),
        lambda: (200, {}, b"[" * 100_000),
        lambda: (200, {}, completion("\ud83d")),
        lambda: (200, {}, completion("Sad" * 100_000)),
        lambda: (429, {"Retry-After": "nan"}, {}),
        lambda: (429, {"Retry-After": "-5"}, {}),
        lambda: (429, {"Retry-After": "soon"}, {}),
    ],
    ids=["flood", "flood of an error", "drip", "drip of an error", "reset", "bomb", "no gzip", "brotli", "short length",
         "deep", "half a surrogate", "long", "nan", "negative", "soon"],
)  # fmt: skip
def test_trouble_with_every_third_question(task, out, trouble):
    """The others are answered, each trouble is a failure or an unparsed answer, and the journal is whole."""
    began = time.monotonic()
    unlucky = {person.seed(id) for n, id in enumerate(task.dataset.utterances) if n % 3 == 2
               for person in crossed(2, task.prompt.personas)}  # fmt: skip
    summary, _ = run(
        task,
        lambda _, __, r: trouble() if r["seed"] in unlucky else good(),
        out,
        timeout=2 if trouble()[2] is drip else 30,
    )
    assert summary["labelled"] == 8 and summary["failed"] + summary["unparsed"] == 4
    attempts = read_journal(out)
    assert len(attempts) == 12 and max(len(attempt.line()) for attempt in attempts) < 10_000
    assert time.monotonic() - began < 30
    assert run(task, good, out)[0]["labelled"] == 12 - summary["unparsed"]


def test_headers_that_never_end(task, out):
    """No single read takes long; the request as a whole does."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(OSError):  # closed at the end
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=dribble, args=[connection], daemon=True).start()

    def dribble(connection):
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(600):
                connection.sendall(b"y")
                time.sleep(0.05)

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    engine = OpenAIEngine("m", task, base_url=url, timeout=0.5)
    with pytest.raises(UserError, match=r"alike, the first 3 with: no reply within 1 s .--timeout"):
        annotate(task, engine, crossed(2, task.prompt.personas), out)
    listening.close()


def test_gzip_that_was_not_asked_for_is_read(task, out):
    import json

    body = gzip.compress(json.dumps(completion("Sad.")).encode())
    assert len(body) < BODY_BYTES
    assert run(task, lambda *_: (200, {"Content-Encoding": "gzip"}, body), out)[0]["labelled"] == 12


@pytest.mark.parametrize("date", [False, True], ids=["seconds", "date"])
def test_a_long_retry_after_pauses_the_run(task, out, monkeypatch, capsys, date):
    """No attempt and no try is spent on it."""
    monkeypatch.setattr(openai_engine, "PAUSE", 0.5)
    met = Counter()

    def behave(server, number, request):
        met[request["seed"]] += 1
        if len(met) > 3 or met[request["seed"]] > 2:
            return good()
        return 429, {"Retry-After": email.utils.formatdate(time.time() + 3, usegmt=True) if date else "1.2"}, {}

    began = time.monotonic()
    summary, _ = run(task, behave, out, retries=0)
    assert summary["labelled"] == 12 and time.monotonic() - began > 0.9
    assert "127.0.0.1 asks for a pause of 00:0" in capsys.readouterr().err
    assert all(attempt.outcome is None for attempt in read_journal(out))


def test_a_pause_of_days_ends_the_run(task, out):
    with pytest.raises(Unfinished, match=r"asks for a pause of 11\.6 days; what was answered is kept"):
        run(task, lambda _, n, __: good() if n < 2 else (503, {"Retry-After": "1000000"}, {}), out)
    assert len(read_journal(out)) >= 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0", 0), ("1.5", 1.5), ("", None), ("nan", None), ("inf", None), ("-1", None), ("soon", None),
     ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("Wed, 99 Oct 2015", None)],
)  # fmt: skip
def test_retry_after(value, seconds):
    assert retry_after({"retry-after": value}) == seconds
    later = email.utils.formatdate(time.time() + 600, usegmt=True)
    assert retry_after({"retry-after": later}) == pytest.approx(600, abs=2)


@pytest.mark.parametrize("key", ["sk-\n-secret", "sk-\u2013secret"])
def test_a_key_that_is_none(task, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds characters that no key has") as refusal:
        OpenAIEngine("m", task, base_url="http://localhost:1/v1")
    assert "secret" not in str(refusal.value)
