"""Rows of a manifest, grouped into clips: one row per clip, or one per vote."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile

from aer_jax.corpora.base import Clip
from aer_jax.corpora.label_names import LabelNames
from aer_jax.corpora.manifest.fields import (
    audio_path,
    contradicting_durations,
    made_ids,
    part_names,
    part_of,
    point,
    read_segment,
    text_of,
)
from aer_jax.corpora.manifest.votes import read_distribution, read_number, read_raters, read_votes
from aer_jax.corpora.tables.columns import Columns, looks_like_time_or_channel
from aer_jax.corpora.tables.read import Table
from aer_jax.corpora.tables.times import past_the_end
from aer_jax.corpora.text import brief
from aer_jax.errors import UserError, nearest
from aer_jax.labels.votes import Vote

_TEXT = ("id", "audio", "speaker", "transcript", "split", "rater")


@dataclass
class _Line:
    """The lines of one clip."""

    where: str
    text: dict[str, str]
    audio: Path
    part: str | None
    start: float | None
    end: float | None
    votes: tuple[Vote, ...]
    of_shares: bool


class Rows:
    """The rows of a table, gathered into clips."""

    def __init__(self, table: Table, columns: Columns, names: LabelNames):
        self.table, self.columns, self.names = table, columns, names
        rows = {where: row for where, row in table.rows if isinstance(row, dict)}
        self._made_ids = {} if "id" in columns.one else made_ids(rows, columns)
        self._contradictions = contradicting_durations(rows, columns, table.decimal_comma)
        splits = (columns.of(row, "split") for row in rows.values())
        self._parts = part_names({value.strip() for value in splits if isinstance(value, str)})
        self._lines: dict[str, _Line] = {}
        self._seconds: dict[Path, float] = {}
        self.unread: set[str] = set()

    def add(self, row: dict[str, Any], where: str) -> None:
        """Take one row."""
        line = self._line(row, where)
        id = line.text["id"]
        known = self._lines.get(id)
        self._lines[id] = line if known is None else self._merged(known, line)
        self.unread |= row.keys() - self.columns.used

    def clips(self) -> list[Clip]:
        """All clips; the segments of a recording follow its first, so that it is decoded once."""
        of_recording: defaultdict[object, list[Clip]] = defaultdict(list)
        for id, line in self._lines.items():
            clip = Clip(id, line.text["speaker"], line.audio, line.votes, line.text["transcript"], line.part)
            clip = replace(clip, start=line.start, end=line.end, where=line.where)
            of_recording[clip.audio if clip.is_segment else id].append(clip)
        return [clip for clips in of_recording.values() for clip in clips]

    def notes(self) -> list[str]:
        """Notes for the data report."""
        lines = self._lines.values()
        segments = [line for line in lines if line.start is not None or line.end is not None]
        shares = sum(line.of_shares for line in lines)
        notes = self.names.notes()
        if "id" not in self.columns.one:
            notes.append('There is no column "id"; ids are made of file names.')
        if segments:
            recordings = len({line.audio for line in segments})
            notes.append(f"{len(segments)} clips are segments, cut from {recordings} recording(s).")
        if shares:
            notes.append(
                f"{shares} clips give shares instead of votes: the number of raters behind them is unknown, and what "
                "compares raters cannot be computed from them."
            )
        if twins := case_twins({line.text["speaker"] for line in lines}):
            notes.append(f"The speakers {twins[0]} and {twins[1]} differ by case alone; are they one person?")
        if odd := sorted(filter(looks_like_time_or_channel, self.unread)):
            notes.append(
                f"Not read, though the name suggests a time or a channel: {', '.join(odd)}. "
                f"{'' if segments else 'Each clip is a whole recording. '}All channels are mixed to one; "
                "--map start=COLUMN,end=COLUMN names times."
            )
        return notes

    def _line(self, row: dict[str, Any], where: str) -> _Line:
        columns = self.columns
        text = {name: text_of(columns.of(row, name), name, where) for name in _TEXT}
        text["id"] = text["id"] or self._made_ids.get(where, "")
        for name in ("id", "audio", "speaker"):
            if not text[name]:
                given = columns.of(row, name)
                problem = "is missing" if given is None else f'is "{given}", which says that there is none'
                raise UserError(f'{where}: "{name}" {problem}.{nearest(name, row.keys() - columns.used)}')
        start, end = read_segment(row, columns, where, self.table.decimal_comma)
        if where in self._contradictions:
            raise UserError(self._contradictions[where])
        audio = audio_path(text["audio"], self.table.path.parent, where)
        if wrong := past_the_end(start, end, self._length(audio), where) if start or end else "":
            raise UserError(wrong)
        part = part_of(text["split"], self._parts, where)
        votes = self._votes(row, text, where)
        of_shares = bool(votes) and ("shares" in columns.many or columns.of(row, "distribution") is not None)
        return _Line(where, text, audio, part, start, end, votes, of_shares)

    def _length(self, audio: Path) -> float:
        """Seconds of a recording whose header can be believed; infinite where only decoding it will tell."""
        if audio not in self._seconds:
            self._seconds[audio] = math.inf
            if audio.suffix.lower() in (".wav", ".flac"):
                try:
                    if audio.is_file():  # a pipe would be waited for
                        about = soundfile.info(audio)
                        self._seconds[audio] = about.frames / about.samplerate if about.frames else math.inf
                except (soundfile.SoundFileError, OSError, ValueError):
                    pass  # said when it is decoded
        return self._seconds[audio]

    def _votes(self, row: dict[str, Any], text: dict[str, str], where: str) -> tuple[Vote, ...]:
        id, columns = text["id"], self.columns
        votes, shares = columns.of(row, "votes"), columns.of(row, "distribution")
        if votes is not None and shares is not None:
            raise UserError(f"{where} has votes and a distribution; give one of them.")
        for kind, names in columns.many.items():
            cells = {name: row[name] for name in names if name in row}
            if kind == "raters":
                return read_raters(id, cells, self.names, where)
            votes = {name: self._number(cell, kind, where) for name, cell in cells.items()}
            shares, votes = (votes or None, None) if kind == "shares" else (None, votes)
        if shares is not None:
            given = read_distribution(id, shares, self.names, where)
        else:
            given = read_votes(id, [] if votes is None else votes, self.names, where)
        if "rater" not in columns.one:
            return given
        if len(given) > 1 and all(vote.weight == 1 for vote in given):
            raise UserError(
                f'{where}: the rater "{text["rater"]}" gives {len(given)} votes; write one line per vote, or leave the '
                f"column unread with --map rater=."
            )
        return tuple(replace(vote, rater=vote.rater or text["rater"] or None) for vote in given)

    def _number(self, cell: Any, kind: str, where: str) -> Any:
        if isinstance(cell, str) and self.table.decimal_comma:
            cell = point(cell)
        return read_number(cell, kind, where)

    def _merged(self, known: _Line, line: _Line) -> _Line:
        id, first = line.text["id"], known.where.rpartition(", ")[2]
        if "rater" not in self.columns.one:
            raise UserError(f"{line.where}: {self._stands_twice(line, first)}")
        for name in _TEXT:
            if name != "rater" and line.text[name] and known.text[name] and line.text[name] != known.text[name]:
                raise UserError(
                    f'{line.where}: "{name}" of the clip "{brief(id)}" differs from {first}; make them alike.'
                )
        if (known.start, known.end) != (line.start, line.end):
            raise UserError(f'{line.where}: the times of the clip "{id}" differ from {first}; make them alike.')
        raters = {vote.rater for vote in known.votes if vote.rater is not None}
        for vote in line.votes:
            if vote.rater in raters:
                raise UserError(f'{line.where}: the rater "{vote.rater}" votes again for "{id}"; keep one vote.')
        text = {name: known.text[name] or line.text[name] for name in _TEXT}
        return replace(known, text=text, part=known.part or line.part, votes=known.votes + line.votes)

    def _stands_twice(self, line: _Line, first: str) -> str:
        """Why two lines cannot be distinguished, and which columns would distinguish them."""
        if "id" in self.columns.one:
            return (
                f'the id "{line.text["id"]}" stands in {first} already; ids are unique, unless a column "rater" says '
                "that each line is one vote (--map rater=COLUMN)."
            )
        unread = [name for name in self.table.columns if name not in self.columns.used]
        times = ", ".join(brief(name) for name in unread if looks_like_time_or_channel(name))
        return (
            f'the recording "{brief(line.text["audio"])}" stands in {first} already, and nothing that is read tells '
            f"the lines apart{f' ({times}: not read)' if times else ''}; name times in seconds with --map "
            "start=COLUMN,end=COLUMN, ids with --map id=COLUMN, or, where each line is one vote, --map rater=COLUMN."
        )


def case_twins(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that differ by case alone."""
    known: dict[str, str] = {}
    for name in sorted(names):
        twin = known.setdefault(name.casefold(), name)
        if twin != name:
            return twin, name
    return None
