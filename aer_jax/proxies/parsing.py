"""From a raw response to a label, strictly: the response is exactly one label, or it is unparsed.

Looking for a label inside a longer response goes wrong ("not angry", "unhappy", "neutral, maybe sad"), so
nothing is looked for; such responses are counted as unparsed and kept as they came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aer_jax.errors import UserError

# What may surround a label: space, quotes, brackets, marks that end a sentence, emphasis of Markdown.
_AROUND = " \t\r\n\"'`“”„\u2018\u2019«»()[]{}.,;:!?…*_"


def label_table(labels: Sequence[str]) -> dict[str, str]:
    """Folded spelling -> label.

    Raises:
        UserError: a label is empty when folded, or two labels fold to the same spelling.
    """
    table: dict[str, str] = {}
    for label in labels:
        folded = _fold(label)
        if not folded:
            raise UserError(f"{label!r} cannot be a label of the annotation prompt; it holds no word.")
        if folded in table:
            raise UserError(f'labels "{table[folded]}" and "{label}" could not be told apart in an answer.')
        table[folded] = label
    return table


def parse(response: str, labels: Sequence[str]) -> str | None:
    """The label that `response` is, or None where it is unparsed.

    Case, surrounding punctuation and the number of spaces between words do not matter; all else must agree.
    """
    return label_table(labels).get(_fold(response))


def _fold(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip(_AROUND)).casefold()
