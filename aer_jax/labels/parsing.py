"""Strict parsing of responses: exactly one label or synonym, or unparsed.

Looking for a label inside a longer response goes wrong ("not angry", "unhappy", "neutral, maybe sad"), so
nothing is looked for; such responses are counted as unparsed and kept as they came. Synonyms stand in synonyms.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from aer_jax.errors import UserError

SYNONYMS = Path(__file__).parent / "synonyms.yaml"

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


def synonyms_of(corpus: str, labels: Sequence[str]) -> dict[str, str]:
    """Folded word -> label, by the table of a corpus; empty where it has none. No label is among the words."""
    tables = yaml.safe_load(SYNONYMS.read_text("utf-8"))
    own = {_fold(label): words for label, words in tables.get(corpus, {}).items()}
    known = label_table(labels)
    return {
        _fold(word): label
        for folded, label in known.items()
        for word in own.get(folded, ())
        if _fold(word) not in known
    }


def parse(response: str, labels: Sequence[str], synonyms: Mapping[str, str] | None = None) -> str | None:
    """The label that `response` is, or None where it is unparsed.

    Case, surrounding punctuation and the number of spaces between words do not matter; all else must agree. What a
    model thinks first, up to </think>, is no part of its answer.

    Args:
        response: as it came.
        labels: what it may be.
        synonyms: see `synonyms_of`.
    """
    return {**(synonyms or {}), **label_table(labels)}.get(_fold(response.rpartition("</think>")[2]))


def _fold(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip(_AROUND)).casefold()
