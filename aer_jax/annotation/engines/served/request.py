"""The fields of a request to a chat server, and how `--request` changes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from aer_jax.annotation.listeners import Listener
from aer_jax.errors import UserError

NEW_TOKENS = 64  # a label is short, but some models think aloud before they say it

# A server samples with the cut-offs and penalties of a checkpoint's generation_config.json unless told otherwise. These
# values turn them off, as the PyTorch engine does: each token is drawn from p^(1/T) over the whole vocabulary.
SAMPLING: dict[str, Any] = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
# Of vLLM, SGLang and the like: fields that OpenAI's own interface lacks.
EXTENSIONS = ("top_k", "min_p", "repetition_penalty")
OWN = ("max_tokens", "temperature", "seed", *SAMPLING)
_FIXED = ("model", "messages", "stream", "n")


@dataclass(frozen=True)
class Request:
    """What is sent besides model and messages.

    Attributes:
        changes: field -> "" (left out), another name for it, or a value.
    """

    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """As `--request` has it; None where nothing is changed."""
        return ",".join(f"{name}={value}" for name, value in self.changes.items()) or None

    def without(self, names: tuple[str, ...]) -> Request:
        """A copy without some fields."""
        return Request({**self.changes, **dict.fromkeys(names, "")})

    def sends(self, name: str) -> bool:
        """Whether a field is sent."""
        return self.changes.get(name, name) != ""

    def fields(self, listener: Listener, utterance: str) -> dict[str, Any]:
        """The fields of one question."""
        values = {"max_tokens": NEW_TOKENS, "temperature": listener.temperature, "seed": listener.seed(utterance)}
        fields = {**values, **SAMPLING}
        for name, change in self.changes.items():
            value = fields.pop(name, None)
            if name in OWN and isinstance(change, str):
                if change:
                    fields[change] = value
            else:
                fields[name] = change
        return fields


def parse_request(text: str) -> Request:
    """Parse `max_tokens=max_completion_tokens,temperature=,top_k=20`: a renamed field, an omitted one, a value.

    A name that is none of `OWN` is a field that is added.

    Raises:
        UserError: it is not of this form, or changes what the annotation itself decides.
    """
    changes: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = map(str.strip, part.partition("="))
        if not equals or not name.isidentifier():
            raise UserError(f'--request: "{part}" is not of the form field=, field=other_name or field=value.')
        if name in _FIXED:
            raise UserError(f"--request: {name} is the annotation's own; leave it out.")
        changes[name] = _value(value)
        is_name = isinstance(changes[name], str) and (not value or value.isidentifier())
        if name in ("temperature", "seed") and not is_name:
            raise UserError(f"--request: {name} is each listener's own (--temperatures); leave it out with {name}=.")
        if name in OWN and isinstance(changes[name], str) and not is_name:
            raise UserError(f'--request: "{value}" is neither a number nor a name for {name}.')
        if name not in OWN and value == "":
            raise UserError(f"--request: {name} is not sent anyway; known: {', '.join(OWN)}.")
    return Request(changes)


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text
