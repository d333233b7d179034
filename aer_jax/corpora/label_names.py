"""Label names: synonyms, spellings of "not available", and text that cannot be a label."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from aer_jax.corpora.tables.read import delimiter_of
from aer_jax.corpora.text import parse_json, read_text, tidy
from aer_jax.errors import UserError

# As pandas, R, Excel, SQL and people write that there is no value.
_MISSING = {
    "",
    "nan",
    "na",
    "n/a",
    "n.a.",
    "n.a",
    "#n/a",
    "#na",
    "#n/a n/a",
    "<na>",
    "nat",
    "none",
    "null",
    "nil",
    "1.#ind",
}
_MISSING |= {"(empty)", "empty", "(blank)", "blank", "missing", "undefined"}
_SIGN = re.compile(r"([-\u2013\u2014?./*_])\1*")
# What separates labels, belongs to a list's spelling, or counts and comments on a label: "happy (2)", "happy?".
_SEPARATORS = re.compile(
    r"[,;|/\\:&+=<>\[\]{}\"#?!*%@~`\t\r\n\u2028\u2029]|[\u060c\u061b\u3001\u30fb\uff06\uff0b\uff0c\uff0f\uff1a\uff1b\uff5c]|^'|'$|(?<=\s)(?:and|or|-)(?=\s)|\bx?[0-9]+(?:[.,][0-9]+)?x?\b",
    re.IGNORECASE,
)
_LONGEST = 60
_CHARACTER = re.compile(r"[^\W_]|[^\x00-\x7f]")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?%?")


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value: empty, `nan`, `N/A`, `None`, `-`, `?` and their like."""
    return text.strip().casefold() in _MISSING or _SIGN.fullmatch(text.strip()) is not None


class LabelNames:
    """Labels as written -> labels of the corpus.

    Attributes:
        missing: spellings of "not available" that were read instead of a vote, and how often.
        renamed: (as written, label) by the table of synonyms, and how often.
    """

    def __init__(self, synonyms: Mapping[str, str] | None = None):
        """Without `synonyms` labels are as written; with it, case does not matter, and others become lower case."""
        self._synonyms = synonyms
        self.missing: Counter[str] = Counter()
        self.renamed: Counter[tuple[str, str]] = Counter()

    def of(self, written: str, where: str) -> str | None:
        """The label that a text names; None where it says that there is no vote.

        Raises:
            UserError: it is a number, or several labels in one.
        """
        text = tidy(written)
        label = None if self._synonyms is None else self._synonyms.get(text.casefold())
        if label is None and is_missing(text):
            self.missing[text] += 1
            return None
        if label is None:
            _check(text, where)
            label = text if self._synonyms is None else text.lower()
        if label != text:
            self.renamed[text, label] += 1
        return label or None

    def knows(self, text: str) -> bool:
        """Whether the table of synonyms names this text as a whole."""
        return self._synonyms is not None and tidy(text).casefold() in self._synonyms

    def notes(self) -> list[str]:
        """Notes for the data report."""
        notes = []
        if self.missing:
            words = ", ".join(f'"{word}" {n}' if word else f"empty {n}" for word, n in self.missing.most_common(8))
            notes.append(f"Not available, so no vote: {words}.")
        if self.renamed:
            words = ", ".join(f"{a} -> {b or 'no vote'} {n}" for (a, b), n in self.renamed.most_common(20))
            notes.append(f"Labels renamed by the table of synonyms (votes): {words}.")
        return notes


def _check(text: str, where: str) -> None:
    if len(text) > _LONGEST:
        raise UserError(f'{where}: "{text[:40]}..." is {len(text)} characters long and no label; is the column right?')
    if _NUMBER.fullmatch(text):
        raise UserError(
            f'{where}: the label "{text}" is a number; give --labels a table of what numbers mean ("{text},angry"), '
            "or write counts as angry:2;sad:1."
        )
    sign = _SEPARATORS.search(text) or (None if _CHARACTER.search(text) else re.match(".", text))
    if sign:
        shown_text = " ".join(text[:80].split())
        raise UserError(
            f'{where}: "{shown_text}" is no label because of its {sign[0]!r}; separate votes by semicolons '
            f'(happy;sad), or name what it means in the table of --labels ("{shown_text}",happy).'
        )


def read_synonyms(path: str | Path) -> dict[str, str]:
    """A table of synonyms: as written, without regard to case -> label; "" where it is no vote.

    Args:
        path: lines `anger,angry` (or with another delimiter), or a JSON object {"anger": "angry"}.

    Raises:
        UserError: it cannot be read, or gives a text two labels.
    """
    path = Path(path)
    text = read_text(path)
    if text.lstrip().startswith("{"):
        value = parse_json(text, str(path))
        pairs = [(f"{path}", key, label) for key, label in value.items()]
    else:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text.strip().partition("\n")[0]))
        pairs = []
        try:
            for row in rows:
                if row and len(row) != 2:
                    raise UserError(f"{path}, line {rows.line_num} is not two cells, for instance anger,angry.")
                pairs += [(f"{path}, line {rows.line_num}", row[0], row[1])] if row else []
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num} is not CSV ({error}).") from None
    synonyms: dict[str, str] = {}
    for where, written, label in pairs:
        if label is not None and not isinstance(label, str):
            raise UserError(f'{where}: "{written}" must be given a label, not {label!r:.80}.')
        label = "" if label is None or is_missing(label) else tidy(label)
        if label:
            _check(label, where)
        if synonyms.setdefault(tidy(written).casefold(), label) != label:
            raise UserError(f'{where}: "{written}" has two labels; keep one.')
    if not synonyms:
        raise UserError(f"{path} names no label; write a line `anger,angry` for each.")
    # A label that others are renamed to is itself written in any case.
    return {label.casefold(): label for label in synonyms.values() if label} | synonyms
