"""Interface of annotation engines: questions in, answers out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aer_jax.annotation.listeners import Listener
from aer_jax.labels.attempts import Answers


class Question(NamedTuple):
    """One question: a listener and an utterance."""

    utterance: str
    listener: Listener


@dataclass(frozen=True)
class Answer:
    """The answer to a question: a response, a distribution over the labels, or an error.

    Attributes:
        response: as it came.
        probs: label -> probability, where nothing was sampled.
        error: why there is neither; a response that is no answer, such as one that was cut off, may stand next to it.
        request: see `Attempt`.
    """

    response: str = ""
    probs: dict[str, float] | None = None
    error: str | None = None
    request: str | None = None


class Engine(Protocol):
    """An annotating model.

    Attributes:
        model: the name by which its votes are known; it changes with the weights.
        answers: "free", "constrained" or "exact", see `Attempt`.
    """

    model: str
    answers: Answers

    def ask(self, questions: Sequence[Question]) -> Generator[list[tuple[Question, Answer]]]:
        """Answer each question once, some at a time and in any order.

        Closing the iterator ends whatever was started for it.

        Raises:
            UserError: the engine cannot go on; what was answered has been handed out.
        """
        ...
