"""Replies of a chat server: completions of the OpenAI kind as `Answer`, and error messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from aer_jax.annotation.engines.interface import Answer
from aer_jax.annotation.engines.served.http_client import BODY_BYTES
from aer_jax.files.json_text import parse_json

# vLLM and others hand over apart what a model thinks first.
_THOUGHTS = ("reasoning_content", "reasoning")
_MORE = "allow more, for instance --request max_tokens=2048"
MESSAGE_CHARS = 300


def read_completion(content: bytes, is_label: Callable[[str], bool]) -> Answer:
    """The answer in a reply; a refusal is one, as it came.

    A model that only thinks, or is cut off before it names a label, has not answered: that is an error.

    Args:
        content: the reply's body.
        is_label: whether a label can be read from a text.

    Raises:
        ValueError: the reply is no chat completion.
    """
    if len(content) >= BODY_BYTES:
        raise ValueError("it is longer than 1 MB")
    try:
        reply = parse_json(content, nan=True)
    except json.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    match reply:
        case {"choices": [{"message": dict(message)} as choice, *_]}:
            pass
        case _:
            raise ValueError("it has no choices with a message")
    text = _text(message.get("content"))
    if not text and isinstance(message.get("refusal"), str):
        text = message["refusal"]
    answer = text.rpartition("</think>")[2]
    unclosed = answer.lstrip().startswith("<think>")
    thinks = unclosed or answer != text or any(message.get(name) for name in _THOUGHTS)
    error = None
    if choice.get("finish_reason") == "length" and not is_label(text):
        error = f"cut off by its length before a label; {_MORE}"
    elif unclosed or (thinks and not answer.strip()):
        error = f"nothing but thinking; {_MORE}"
    return Answer(text, error=error)


def _text(content: Any) -> str:
    match content:
        case None:
            return ""
        case str():
            return content
        case list():
            return "".join(map(_part, content))
    raise ValueError(f"its content is {type(content).__name__}")


def _part(part: Any) -> str:
    match part:
        case str():
            return part
        case {"type": "thinking" | "reasoning"}:
            return ""
        case {"text": str(text)} | {"refusal": str(text)}:
            return text
    raise ValueError("a part of its content is no text")


def error_message(content: bytes) -> str:
    """The message in the body of an error, in any form."""
    text = content.decode(errors="replace")
    try:
        body = parse_json(content, nan=True)
    except ValueError:
        return text
    for name in ("error", "detail", "message"):  # as OpenAI, FastAPI and vLLM nest them
        if isinstance(body, dict) and body.get(name):
            body = body[name]
    return body if isinstance(body, str) else text


def error_code(content: bytes) -> str:
    """The code in the body of an error, such as insufficient_quota; "" where it has none."""
    try:
        body = parse_json(content, nan=True)
    except ValueError:
        return ""
    match body:
        case {"error": {"code": str(code)}}:
            return code
    return ""


def one_line(text: str, secret: str) -> str:
    """Text of a server for a sentence: on one short line, printable, and without the key."""
    if len(secret) >= 6:  # a shorter one, such as EMPTY, is none
        text = text.replace(secret, "[key]")
    text = " ".join("".join(char if char.isprintable() else " " for char in text[: 20 * MESSAGE_CHARS]).split())
    return text if len(text) <= MESSAGE_CHARS else f"{text[:MESSAGE_CHARS]} ..."
