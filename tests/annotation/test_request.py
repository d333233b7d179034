"""Fields of a request: what is sent, left out, named otherwise."""

import pytest

from aer_jax.annotation.engines.served.request import EXTENSIONS, parse_request
from aer_jax.annotation.listeners import Listener
from aer_jax.errors import UserError

LISTENER = Listener(0, "Go by tone.", 0.4)
DEFAULT = {"max_tokens": 64, "temperature": 0.4, "seed": LISTENER.seed("u"), "top_p": 1.0, "top_k": -1, "min_p": 0.0,
           "repetition_penalty": 1.0}  # fmt: skip


def fields(text):
    return parse_request(text).fields(LISTENER, "u")


@pytest.mark.parametrize(
    ("text", "gone", "new"),
    [
        ("", (), {}),
        ("seed=", ("seed",), {}),
        ("max_tokens=max_completion_tokens", ("max_tokens",), {"max_completion_tokens": 64}),
        ("max_tokens=2048", (), {"max_tokens": 2048}),
        ("max_tokens=,max_completion_tokens=2048", ("max_tokens",), {"max_completion_tokens": 2048}),
        (" temperature= , seed=random_seed", ("temperature", "seed"), {"random_seed": DEFAULT["seed"]}),
        ("top_p=0.5,top_k=20", (), {"top_p": 0.5, "top_k": 20}),
        ("reasoning_effort=low,use_cache=false", (), {"reasoning_effort": "low", "use_cache": False}),
    ],
)
def test_fields(text, gone, new):
    assert fields(text) == {name: value for name, value in DEFAULT.items() if name not in gone} | new


def test_what_was_changed_is_told():
    assert parse_request("").text is None
    changed = parse_request("seed=,max_tokens=2048").without(EXTENSIONS)
    assert changed.text == "seed=,max_tokens=2048,top_k=,min_p=,repetition_penalty="
    assert changed.sends("max_tokens") and not changed.sends("top_k")
    assert parse_request(changed.text) == changed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed", r"not of the form field="),
        ("=5", r"not of the form field="),
        ("a b=5", r"not of the form field="),
        ("model=other", "model is the annotation's own"),
        ("stream=true", "stream is the annotation's own"),
        ("temperature=0.5", "each listener's own"),
        ("seed=1", "each listener's own"),
        ("max_tokens=1 000", "neither a number nor a name"),
        ("maxtokens=", "maxtokens is not sent anyway; known: max_tokens"),
    ],
)
def test_what_is_refused(text, words):
    with pytest.raises(UserError, match=words):
        parse_request(text)
