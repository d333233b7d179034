"""The fields of a manifest's line besides its votes: text, audio path, part of the split, segment, and made ids."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from aer_jax.corpora.label_names import is_missing
from aer_jax.corpora.tables.columns import Columns
from aer_jax.corpora.tables.times import read_seconds
from aer_jax.corpora.text import brief, shown, tidy
from aer_jax.errors import UserError, nearest

_PARTS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_EVALUATION = ("eval", "evaluation")
# In a transcript "none" and "na" are words; these spellings are a program's.
_MISSING_TRANSCRIPTS = {"nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaT", "None", "null", "NULL"}


def text_of(value: Any, name: str, where: str) -> str:
    """Text, or a whole number as text; "" where a cell is empty or says that there is no value.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # pandas makes floats of whole numbers where one is missing
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, datetime.date):  # a workbook's; how Excel shows it is not known
        raise UserError(f'{where}: "{brief(name)}" must be text, not the date {value}; write it as text.')
    if not isinstance(value, str):
        try:
            shown_value = json.dumps(value)[:80]
        except (TypeError, ValueError, RecursionError):
            shown_value = shown(value)
        raise UserError(f'{where}: "{brief(name)}" must be text, not {shown_value}.')
    text = value.strip() if name in ("audio", "transcript") else tidy(value)
    if name == "transcript":
        return "" if text in _MISSING_TRANSCRIPTS or (is_missing(text) and not text.isalpha()) else text
    return "" if is_missing(text) else text


def audio_path(text: str, folder: Path, where: str) -> Path:
    """Where an audio file lies: relative to the manifest's folder; `~`, backslashes and file:// are understood.

    Raises:
        UserError: a URL that is not of this machine.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
    if scheme and scheme[1].lower() == "file":
        url = urlsplit(text)
        if url.netloc not in ("", "localhost"):
            raise UserError(f'{where}: "{text[:200]}" is a file of another machine; copy it here and name its path.')
        text = unquote(url.path)
    elif scheme:
        raise UserError(
            f'{where}: "{text[:200]}" is a URL; only files are read: download or mount it, and name its path.'
        )
    try:
        path = folder / (Path(text).expanduser() if text.startswith("~") else text)
        if "\\" in text and not path.exists():
            path = folder / text.replace("\\", "/")
    except (OSError, ValueError, RuntimeError):  # no such home; a NUL
        path = folder / text
    return path


def part_names(spellings: Iterable[str]) -> dict[str, str]:
    """Spelling in lower case -> "train", "validation" or "test", for the spellings that a table uses.

    "eval" is a test set next to a development set, and a validation set next to a test set; else it has no meaning.
    """
    names = dict(_PARTS)
    used = {_PARTS[word] for word in map(str.casefold, spellings) if word in _PARTS}
    if len(used & {"validation", "test"}) == 1:
        names |= dict.fromkeys(_EVALUATION, "validation" if "test" in used else "test")
    return names


def part_of(text: str, names: Mapping[str, str], where: str) -> str | None:
    """The part that a cell names; None where it is empty.

    Raises:
        UserError: it is no part.
    """
    part = names.get(text.casefold())
    if text and part is None:
        if text.casefold() in _EVALUATION:
            raise UserError(f'{where}: split is "{brief(text)}", which could be validation or test; write one of them.')
        hint = nearest(text, ("train", "validation", "test"))
        raise UserError(
            f'{where}: split is "{brief(text)}".{hint} Known: train, validation (dev, val, valid), test; '
            "a manifest's column of something else is left unread with --map split=."
        )
    return part


def read_segment(
    row: Mapping[str, Any], columns: Columns, where: str, decimal_comma: bool
) -> tuple[float | None, float | None]:
    """Start and end in seconds; None where a line leaves them open.

    Raises:
        UserError: a time cannot be read, or the end is not after the start.
    """
    times: dict[str, float] = {}
    for name in ("start", "end", "duration"):
        if name in columns.one:
            time = _time(row, columns.one[name], name in columns.milliseconds, where, decimal_comma)
            times |= {} if time is None else {name: time}
    start, end = times.get("start"), times.get("end")
    if "duration" in times:
        if start is None:
            raise UserError(
                f'{where}: "{columns.one["duration"]}" is given without "{columns.one["start"]}"; give both.'
            )
        end = start + times["duration"]
    if end is not None and end <= (start or 0.0):
        raise UserError(
            f"{where}: the segment ends at {end:g} s, not after its start at {start or 0.0:g} s; correct it."
        )
    return start, end


def _time(row: Mapping[str, Any], column: str, milliseconds: bool, where: str, decimal_comma: bool) -> float | None:
    value = row.get(column)
    if value is None or (isinstance(value, str) and is_missing(value)):
        return None
    if isinstance(value, str) and decimal_comma:
        value = point(value)
    return read_seconds(value, column, where, milliseconds)


def contradicting_durations(
    rows: Mapping[str, Mapping[str, Any]], columns: Columns, decimal_comma: bool
) -> dict[str, str]:
    """where -> a sentence, for lines whose duration is not their end minus their start.

    A duration next to start and end may be the recording's. It is the segment's where that shows on some line: one that
    starts later than 0 and lasts as long as it says.
    """
    if columns.duration is None:
        return {}
    read: dict[str, tuple[float, float | None, float]] = {}
    for where, row in rows.items():
        with suppress(UserError):  # times that cannot be read are said where they are needed
            start, end = read_segment(row, columns, where, decimal_comma)
            duration = _time(row, columns.duration, "duration" in columns.milliseconds, where, decimal_comma)
            if duration is not None and (start is not None or end is not None):
                read[where] = (start or 0.0, end, duration)
    tolerance = 0.5 if all(duration.is_integer() for _, _, duration in read.values()) else 0.05

    def agrees(start: float, end: float | None, duration: float) -> bool:
        return end is not None and abs(end - start - duration) <= tolerance + 1e-6

    if not any(start > 4 * tolerance and agrees(start, end, duration) for start, end, duration in read.values()):
        return {}
    return {
        where: f'{where}: "{columns.duration}" is {duration:g} s, but the segment '
        + (f"lasts {end - start:g} s" if end is not None else "has no end")
        + "; correct it, or leave the column unread with --map duration=."
        for where, (start, end, duration) in read.items()
        if not agrees(start, end, duration)
    }


def point(text: str) -> str:
    """A number with a decimal comma as one with a point; other text as it is."""
    return text.replace(",", ".") if re.fullmatch(r"\s*[+-]?\d*,\d+\s*", text) else text


def made_ids(rows: Mapping[str, Mapping[str, Any]], columns: Columns) -> dict[str, str]:
    """where -> an id for tables without one: the file's name, with as much of path, times and line as makes it unique.

    Lines about the same recording and times share an id where votes have raters, as then a line is a vote.
    """
    keys = {where: tuple(str(columns.of(row, name) or "") for name in ("audio", "start", "end", "duration"))
            for where, row in rows.items()}  # fmt: skip

    def times(key: tuple[str, ...]) -> str:
        return "".join(f"_{time}" for time in key[1:] if time)

    forms = (
        lambda key: _stem(key[0]),
        lambda key: key[0],
        lambda key: _stem(key[0]) + times(key),
        lambda key: key[0] + times(key),
    )
    for form in forms:
        made = {key: form(key) for key in keys.values()}
        if len(set(made.values())) == len(made):
            break
    ids = {where: made[key] for where, key in keys.items()}
    if "rater" not in columns.one:
        often = Counter(ids.values())
        speakers = Counter((id, str(columns.of(rows[where], "speaker"))) for where, id in ids.items())
        for where, id in ids.items():
            # The same recording, said twice of one speaker, is a mistake; of several, another reader's to notice.
            if often[id] > 1 and speakers[id, str(columns.of(rows[where], "speaker"))] == 1:
                ids[where] = f"{id}_{re.sub(r'^.*?(line|row|item) ', '', where)}"
    return ids


def _stem(audio: str) -> str:
    return re.sub(r"(?<=.)\.\w{1,5}$", "", re.split(r"[\\/]", audio)[-1])
