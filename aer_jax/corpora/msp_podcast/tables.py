"""Speakers and partitions of MSP-Podcast's turns, from the three files that may hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aer_jax.corpora.base import UNKNOWN_SPEAKER, Corpus
from aer_jax.corpora.label_names import is_missing
from aer_jax.corpora.msp_podcast.votes import read_csv, turn
from aer_jax.corpora.text import read_lines
from aer_jax.errors import UserError, nearest

# The owners' names for their partitions, and what they are called here.
PARTITIONS = {
    "Train": "train",
    "Validation": "validation",
    "Development": "validation",
    "Test1": "test1",
    "Test2": "test2",
    "Test3": "test3",
}
_FOLDED = {name.casefold(): part for name, part in PARTITIONS.items()}
_SPEAKER = re.compile(r"(?:speaker[_ ]?)?(?P<name>[A-Za-z0-9_-]+?)(?:\.0)?", re.IGNORECASE)
_GENDER = re.compile(r"\s*Speaker[_ ]?\w+\s*;\s*(?:Male|Female|Unknown|Other)?\s*;?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Speaker and partition of a turn, as far as known."""

    speaker: str = UNKNOWN_SPEAKER
    partition: str | None = None

    def joined(self, other: Place, id: str, where: str) -> Place:
        """Both together; a known value wins over an unknown one, two different ones are an error."""
        for what in ("speaker", "partition"):
            ours, theirs = getattr(self, what), getattr(other, what)
            if ours != theirs and None not in (ours, theirs) and UNKNOWN_SPEAKER not in (ours, theirs):
                raise UserError(f"{where}: {what} {theirs} of {id}, but {ours} elsewhere; fix one of them.")
        speaker = other.speaker if self.speaker == UNKNOWN_SPEAKER else self.speaker
        return Place(speaker, self.partition or other.partition)


_Places = Iterator[tuple[str, str, Place]]  # where, turn, speaker and partition


def read_consensus(path: Path, corpus: Corpus) -> _Places:
    """labels_consensus.csv: the columns FileName and, where they are there, SpkrID and Split_Set."""
    for where, cells in read_csv(path, corpus, "FileName"):
        place = None
        with corpus.reading(where):
            id = turn(cells["filename"], where)
            speaker = _speaker(cells["spkrid"], where) if "spkrid" in cells else UNKNOWN_SPEAKER
            place = Place(speaker, _partition(cells["split_set"], where) if "split_set" in cells else None)
        if place:
            yield where, id, place


def read_speakers(path: Path, corpus: Corpus) -> _Places:
    """Speaker_ids.txt: a section `Speaker_1; Male`, and a section `MSP-PODCAST_0001_0008.wav; 1`."""
    for where, line in read_lines(path):
        place = None
        with corpus.reading(where):
            file, semicolon, speaker = line.rstrip("; \t").partition(";")
            if semicolon and file.strip().upper().startswith("MSP-"):
                id, place = turn(file, where), Place(_speaker(speaker, where))
            elif line.strip() and not _GENDER.fullmatch(line):
                raise UserError(f"{where} is neither a speaker with a gender nor a file with a speaker.")
        if place:
            yield where, id, place


def read_partitions(path: Path, corpus: Corpus) -> _Places:
    """Partitions.txt: lines `Train; MSP-PODCAST_0001_0008.wav`."""
    for where, line in read_lines(path):
        place = None
        with corpus.reading(where):
            name, semicolon, file = line.rstrip("; \t").partition(";")
            if semicolon:
                id, place = turn(file, where), Place(partition=_partition(name, where))
            elif line.strip():
                raise UserError(f"{where} is not partition; file.")
        if place:
            yield where, id, place


def _speaker(text: str, where: str) -> str:
    if is_missing(text):
        return UNKNOWN_SPEAKER
    name = _SPEAKER.fullmatch(text.strip())
    if not name:
        raise UserError(f'{where}: "{text.strip()}" is no speaker.')
    if name["name"].casefold() == UNKNOWN_SPEAKER.casefold():
        return UNKNOWN_SPEAKER
    return name["name"].lstrip("0") or "0"  # one file says 30, another Speaker_0030


def _partition(text: str, where: str) -> str:
    part = _FOLDED.get(text.strip().replace(" ", "").casefold())
    if part is None:
        raise UserError(f'{where}: "{text.strip()}" is no partition.{nearest(text.strip(), PARTITIONS)}')
    return part
