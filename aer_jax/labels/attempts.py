"""One line of a journal: a request to a listener about an utterance, and its outcome."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from aer_jax.errors import UserError
from aer_jax.files.json_text import parse_json

Answers = Literal["free", "constrained", "exact"]
Outcome = Literal["unparsed", "failed"]

RESPONSE_CHARS = 4000
FORMER_FIELDS = ("tokens_in", "tokens_out")  # what a server counted, in journals of earlier versions


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of a journal.

    Attributes:
        utterance: id of the utterance.
        listener: index of the listener.
        persona: the line it was given.
        temperature: of its sampling.
        seed: of this answer's sampling.
        prompt: fingerprint of prompt, personas, labels and switches.
        model: name and fingerprint of the annotating model.
        response: what it said, as it came, the middle of a long one left out (see `shorten`); "" where there was
            none.
        label: the parsed answer, or None.
        outcome: why there is no label, or None where there is one, or `probs`.
        error: what went wrong where the outcome is "failed".
        answers: "free", sampled as the model likes and parsed; "constrained", sampled among the labels alone;
            "exact", not sampled: `probs` is what infinitely many constrained samples would give.
        probs: label -> probability, where the answer is a distribution; it counts as one vote, in shares.
        request: how the requests to a server differed from the default, as `--request` has it; None where they did not.
    """

    utterance: str
    listener: int
    persona: str
    temperature: float
    seed: int
    prompt: str
    model: str
    response: str
    label: str | None = None
    outcome: Outcome | None = None
    error: str | None = None
    answers: Answers = "free"
    probs: dict[str, float] | None = None
    request: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Utterance and listener."""
        return self.utterance, self.listener

    @property
    def answered(self) -> bool:
        """A label, a distribution or an unparsed response; failures are asked again."""
        return self.outcome != "failed"

    @property
    def shares(self) -> dict[str, float]:
        """Label -> its share of this listener's one vote; empty where there is none."""
        return self.probs or ({} if self.label is None else {self.label: 1.0})

    def line(self) -> str:
        """As it stands in a journal, the line's end included."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        text = json.dumps(values, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "replace").decode()  # half a surrogate pair, as JSON may have it, is no UTF-8


def shorten(response: str) -> str:
    """A response as a journal keeps it: beginning and end of one that is longer than RESPONSE_CHARS."""
    left_out = len(response) - RESPONSE_CHARS
    if left_out <= 0:
        return response
    half = RESPONSE_CHARS // 2
    return f"{response[:half]} [{left_out} characters left out] {response[-half:]}"


def parse_attempt(line: bytes, where: str) -> Attempt:
    """A journal's line.

    Raises:
        UserError: it is none; `where` is named.
    """
    try:
        fields = parse_json(line, nan=True, unique=True)
        attempt = Attempt(**{name: value for name, value in fields.items() if name not in FORMER_FIELDS})
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{where} is not a line of an annotation journal.") from None
    for name, is_valid in _VALID.items():
        if not is_valid(value := getattr(attempt, name)):
            raise UserError(f"{where}: {name} is {reprlib.repr(value)}.")
    if attempt.probs is not None and not _is_distribution(attempt.probs):
        raise UserError(f"{where}: probs must be shares of the labels, at least 0, that sum to 1.")
    known = attempt.outcome in (None, *get_args(Outcome))
    if not known or [attempt.label, attempt.outcome, attempt.probs].count(None) != 2:
        raise UserError(f'{where} must have either a label, or probs, or the outcome "unparsed" or "failed".')
    return attempt


def is_number(value: object) -> bool:
    """Whether JSON's `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and is_number(value)


_VALID: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("utterance", "persona", "prompt", "model", "response"), _is_text),
    **dict.fromkeys(("listener", "seed"), _is_integer),
    "temperature": is_number,
    **dict.fromkeys(("label", "error", "request"), _is_text_or_none),
    "answers": get_args(Answers).__contains__,
}


def _is_distribution(probs: object) -> bool:
    if not isinstance(probs, dict) or not all(is_number(p) and p >= 0 for p in probs.values()):
        return False
    return math.isclose(sum(probs.values()), 1, abs_tol=1e-3)
