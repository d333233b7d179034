"""IEMOCAP's evaluation files: one block per turn, one line per answer.

    [6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]
    C-E2:<TAB>Neutral; Anger;<TAB>(a comment: with anything in it)
    A-E3:<TAB>val 3; act 2; dom  2;<TAB>()

A blank line ends a block. E are external evaluators; F and M are the actors on themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from aer_jax.corpora.base import Corpus
from aer_jax.corpora.label_names import is_missing
from aer_jax.corpora.text import read_lines
from aer_jax.errors import UserError, nearest

DIALOGUE = re.compile(r"Ses0(?P<session>[1-5])[MF]_(?P<kind>impro|script)[0-9]{2}[A-Za-z0-9_]*")
# The letter of the last token speaks; the one after the session wears the motion-capture markers.
UTTERANCE = re.compile(r"Ses0[1-5][MF]_(?:impro|script)[0-9]{2}[A-Za-z0-9_]*_(?P<speaker>[MF])[0-9]{3}")
_CONSENSUS = "neu|fru|ang|sad|exc|hap|sur|fea|oth|dis|xxx"
_NUMBER = r"[0-9]+(?:\.[0-9]*)?"
_HEAD = re.compile(
    rf"\[\s*{_NUMBER}\s*-\s*{_NUMBER}\s*\]\s+(?P<id>\S+)\s+(?:{_CONSENSUS})\s+"
    rf"\[\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\]\s*"
)
_CATEGORIES = re.compile(r"C-(?P<rater>[EFM][0-9]+)\s*:(?P<labels>[^(]*)(?P<comment>\(.*)")
# Where labels end and a comment begins; a second one means that the first parenthesis stood among labels.
_BOUNDARY = re.compile(r"; *\t\s*\(")
_ATTRIBUTES = re.compile(
    rf"A-[EFM][0-9]+\s*:\s*val\s*(?:{_NUMBER})?\s*;\s*act\s*(?:{_NUMBER})?\s*;\s*dom\s*(?:{_NUMBER})?\s*;?\s*(\(.*)?"
)


class RaterAnswer(NamedTuple):
    """One rater's labels, without repetition; none where the answer is blank."""

    rater: str
    labels: tuple[str, ...]


def read_answers(path: Path, corpus: Corpus, labels: Collection[str]) -> dict[str, list[RaterAnswer]]:
    """Turn -> its answers, in the file's order; `labels` are the words that an answer may hold.

    Raises:
        UserError: a line belongs to no block or is none of the three kinds.
    """
    spellings = {label.casefold(): label for label in labels}
    answers: dict[str, list[RaterAnswer]] = {}
    turn: str | None = None
    lines = list(read_lines(path))
    for number, (where, line) in enumerate(lines, 1):
        with corpus.reading(where):
            if not line.strip():
                turn = None
            elif line.startswith("["):
                turn = None  # whatever follows a head that cannot be read belongs to nobody
                turn = _turn(line, path.stem, where)
                if turn in answers:
                    del answers[turn]  # which of them is of this turn nobody knows
                    turn, twice = None, turn
                    raise UserError(f"{where}: a second block of {twice}; keep one.")
                answers[turn] = []
            elif line.startswith("C-"):
                # A file that was cut short ends inside a line; a whole last line may lack its line end.
                answer = _answer(line, spellings, where, cut=number == len(lines))
                if turn is None:
                    raise UserError(f"{where}: an answer that belongs to no turn; its block has no readable head.")
                if any(answer.rater == other.rater for other in answers[turn]):
                    raise UserError(f"{where}: a second answer of {answer.rater} about {turn}; keep one.")
                answers[turn].append(answer)
            elif not line.startswith("% [START_TIME") and not _ATTRIBUTES.fullmatch(line.rstrip()):
                raise UserError(f"{where} is no line of an evaluation file; fetch the file again.")
    return answers


def _turn(line: str, dialogue: str, where: str) -> str:
    head = _HEAD.fullmatch(line)
    if not head or not UTTERANCE.fullmatch(head["id"]):
        raise UserError(f"{where} is no head of a block ([start - end], turn, consensus, [v, a, d]).")
    if head["id"].rpartition("_")[0] != dialogue:
        raise UserError(f"{where}: the turn {head['id']} is not of this file's dialogue.")
    return head["id"]


def _answer(line: str, spellings: Mapping[str, str], where: str, cut: bool) -> RaterAnswer:
    match = _CATEGORIES.fullmatch(line.rstrip())
    if not match or _BOUNDARY.search(match["comment"]):
        raise UserError(
            f"{where} is no answer of a rater (C-E2:, labels each with a semicolon, comment in parentheses)."
        )
    labels_text = match["labels"].strip()
    if (labels_text and not labels_text.endswith(";")) or (cut and not line.rstrip().endswith(")")):
        raise UserError(f"{where} ends inside an answer; fetch the file again.")
    labels = []
    for word in labels_text.split(";"):
        spelled = " ".join(word.split())
        if is_missing(spelled):
            continue
        if spelled.casefold() not in spellings:
            raise UserError(f'{where}: "{spelled}" is no label.{nearest(spelled, spellings.values())}')
        labels.append(spellings[spelled.casefold()])
    return RaterAnswer(match["rater"], tuple(dict.fromkeys(labels)))
