"""One line of a journal: a listener was asked about an utterance, and what came of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from aer_jax.errors import UserError

Answers = Literal["free", "constrained", "exact"]
Outcome = Literal["unparsed", "failed"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line: a listener was asked about an utterance.

    Attributes:
        utterance: id of the utterance.
        listener: index of the listener.
        persona: the line it was given.
        temperature: of its sampling.
        seed: of this answer's sampling.
        prompt: fingerprint of prompt, personas, labels and of how much is told.
        model: name and fingerprint of the annotating model.
        response: what it said, as it came; "" where the attempt failed or nothing was sampled.
        label: the parsed answer, or None.
        outcome: why there is no label, or None where there is one, or `probs`.
        error: what went wrong where the outcome is "failed".
        answers: "free", sampled as the model likes and parsed; "constrained", sampled among the labels alone;
            "exact", not sampled: `probs` is what infinitely many constrained samples would give.
        probs: label -> probability, where the answer is a distribution; it counts as one vote, in shares.
        tokens_in, tokens_out: what a paid server counted.
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
    tokens_in: int | None = None
    tokens_out: int | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Who was asked about what."""
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
        return json.dumps(values, ensure_ascii=False) + "\n"


_KINDS: dict[str, type | tuple[type, ...]] = {"listener": int, "temperature": (int, float), "seed": int}


def parse_attempt(line: bytes, where: str) -> Attempt:
    """A journal's line.

    Raises:
        UserError: it is none; `where` is named.
    """
    try:
        values = json.loads(line)
        attempt = Attempt(**values)
    except (ValueError, TypeError):
        raise UserError(f"{where} is not a line of an annotation journal.") from None
    for field in fields(Attempt)[:8]:
        if not isinstance(values[field.name], _KINDS.get(field.name, str)):
            raise UserError(f"{where}: {field.name} is {values[field.name]!r}.")
    if attempt.answers not in get_args(Answers):
        raise UserError(f"{where}: answers is {attempt.answers!r}.")
    if attempt.probs is not None and not _is_distribution(attempt.probs):
        raise UserError(f"{where}: probs must be shares of the labels, at least 0, that sum to 1.")
    known = attempt.outcome in (None, *get_args(Outcome))
    if not known or [attempt.label, attempt.outcome, attempt.probs].count(None) != 2:
        raise UserError(f'{where} must have either a label, or probs, or the outcome "unparsed" or "failed".')
    return attempt


def _is_distribution(probs: object) -> bool:
    if not isinstance(probs, dict) or not all(isinstance(p, int | float) and p >= 0 for p in probs.values()):
        return False
    return math.isclose(sum(probs.values()), 1, abs_tol=1e-3)
