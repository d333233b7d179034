"""Prompt of a synthetic listener; the wording lies in text files next to this one, to be edited."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aer_jax.errors import UserError
from aer_jax.labels.parsing import label_table

FOLDER = Path(__file__).parent
FIELDS = ("context", "speaker", "transcript", "persona", "labels")
_OPTIONAL = ("context", "speaker", "transcript")


@dataclass(frozen=True)
class Prompt:
    """The annotation prompt.

    Attributes:
        system: the system line.
        question: the user's text; a line that holds {transcript}, {speaker} or {context} is left out where that is
            unknown or not to be told.
        personas: the lines that {persona} stands for, one a kind of listener.
        labels: the allowed answers.
    """

    system: str
    question: str
    personas: tuple[str, ...]
    labels: tuple[str, ...]

    def messages(self, transcript: str, persona: str, *, speaker: str = "", context: str = "") -> list[dict[str, Any]]:
        """The conversation for `processor.apply_chat_template`: system line, then text first and audio last.

        Args:
            transcript: the words, or "" where unknown; control tokens in it are blotted out, since a
                second <|AUDIO|> would ask for a second clip.
            persona: one of `personas`.
            speaker: who speaks, or "" where that is not told.
            context: what was said before, or "".
        """
        given = {"transcript": _plain(transcript), "speaker": _plain(speaker), "context": _plain(context)}
        values = {**given, "persona": persona, "labels": ", ".join(self.labels)}
        absent = [f"{{{name}}}" for name in _OPTIONAL if not given[name]]
        lines = [line for line in self.question.splitlines() if not any(field in line for field in absent)]
        # One pass, so that braces in a transcript stay what they are.
        text = re.sub(r"\{(\w+)\}", lambda field: values[field[1]], "\n".join(lines) + "\n")
        return [
            {"role": "system", "content": self.system},
            {"role": "user", "content": [{"type": "text", "text": text}, {"type": "audio"}]},
        ]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"<\|[^|>]*\|>", " ", text).split())


def load_prompt(labels: Sequence[str], folder: Path = FOLDER) -> Prompt:
    """Read system.txt, question.txt and personas.txt (one persona a line) from `folder`.

    Raises:
        UserError: a file is missing or empty, the question lacks {persona} or {labels} or holds another
            field, or two labels could not be told apart in an answer.
    """
    label_table(labels)
    texts = {}
    for name in ("system", "question", "personas"):
        path = folder / f"{name}.txt"
        try:
            texts[name] = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the prompt file {path} cannot be read ({error}).") from None
        if not texts[name]:
            raise UserError(f"the prompt file {path} is empty.")
    fields = set(re.findall(r"\{(\w+)\}", texts["question"]))
    if not {"persona", "labels"} <= fields <= set(FIELDS):
        raise UserError(
            f"{folder / 'question.txt'} must hold {{persona}} and {{labels}}, may hold {{transcript}}, {{speaker}} and "
            f"{{context}}, and no other field; it has {', '.join(sorted(fields)) or 'none'}."
        )
    personas = tuple(line.strip() for line in texts["personas"].splitlines() if line.strip())
    return Prompt(texts["system"], texts["question"], personas, tuple(labels))
