"""Annotation task: the prompt, filled in for each utterance."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from aer_jax.annotation.prompts import Prompt
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError

# Corpora whose ids are a conversation's name, "_" and a turn.
CONVERSATIONS = ("iemocap", "msp-podcast", "paper-json")


@dataclass(frozen=True)
class AnnotationTask:
    """The prompt, and switches for what it reveals about an utterance.

    Attributes:
        dataset: whose utterances are asked about.
        prompt: the wording.
        transcript: quote the words.
        speaker: name the speaker, in the context too; off by default, since it gives away who speaks.
        context: number of preceding turns of the same conversation to quote, as far as the dataset holds them.

    Raises:
        UserError: context is asked for where the corpus has no conversations, or a switch needs a field that the
            question lacks.
    """

    dataset: Dataset
    prompt: Prompt
    transcript: bool = True
    speaker: bool = False
    context: int = 0

    def __post_init__(self) -> None:
        if self.context and self.dataset.name not in CONVERSATIONS:
            raise UserError(f"{self.dataset.name} has no conversations to take context from; leave --context out.")
        for name in ("speaker", "context"):
            if getattr(self, name) and f"{{{name}}}" not in self.prompt.question:
                raise UserError(f"--{name} needs a line with {{{name}}} in question.txt.")

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with any wording, persona, label or switch."""
        switches = {name: getattr(self, name) for name in ("transcript", "speaker", "context")}
        return hashlib.sha256(json.dumps([asdict(self.prompt), switches]).encode()).hexdigest()[:12]

    def messages(self, utterance: str, persona: str) -> list[dict[str, Any]]:
        """The conversation that asks about an utterance; see `Prompt.messages`."""
        about = self.dataset.utterances[utterance]
        return self.prompt.messages(
            about.transcript if self.transcript else "",
            persona,
            speaker=about.speaker if self.speaker else "",
            context=" / ".join(self._said_before(utterance)),
        )

    def _said_before(self, utterance: str) -> list[str]:
        if not self.context:
            return []
        turns = self._conversations[_conversation(utterance)]
        at = turns.index(utterance)
        before = [self.dataset.utterances[id] for id in turns[max(0, at - self.context) : at]]
        return [f"{u.speaker}: {u.transcript}" if self.speaker else u.transcript for u in before if u.transcript]

    @cached_property
    def _conversations(self) -> dict[str, list[str]]:
        conversations: dict[str, list[str]] = {}
        for id in self.dataset.utterances:
            conversations.setdefault(_conversation(id), []).append(id)
        return conversations


def _conversation(utterance: str) -> str:
    return utterance.rpartition("_")[0]
