"""Times of a table: numbers, clock times and pandas' timedeltas as seconds."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

from aer_jax.corpora.text import shown
from aer_jax.errors import UserError

# Annotators round to hundredths of a second: an end that exceeds the recording by less is the recording's end.
TOLERANCE_SECONDS = 0.05
_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+"
_AMOUNT = re.compile(rf"([+-]?(?:{_NUMBER}))\s*(s|secs?|seconds?|ms|msecs?|milliseconds?)?", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+) days?,? \+?)?(?:(\d+):)?(\d{1,3}):(\d{1,2}(?:[.,]\d*)?)")


def read_seconds(value: Any, name: str, where: str, milliseconds: bool = False) -> float:
    """One time in seconds.

    Args:
        value: a number, text as `1.5`, `1500 ms`, `mm:ss.ss`, `hh:mm:ss.mmm` or `0 days 00:00:01.5`, or a timedelta.
        name: its column.
        where: where it stands.
        milliseconds: whether a number without a unit is in milliseconds.

    Raises:
        UserError: it is no time, or negative.
    """
    scale = 0.001 if milliseconds else 1.0
    seconds = math.nan
    if isinstance(value, datetime.timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _from_text(value.strip(), scale)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value * scale if abs(value) < 1e15 else math.nan
    if not math.isfinite(seconds):
        raise UserError(
            f'{where}: "{name}" is {shown(value)}, not a time in seconds, mm:ss.ss or hh:mm:ss.ss; '
            f"write seconds, or leave the column unread with --map."
        )
    if seconds < 0:
        raise UserError(f'{where}: "{name}" is {shown(value)}; a time counts from the start of the recording.')
    return seconds


def _from_text(text: str, scale: float) -> float:
    if amount := _AMOUNT.fullmatch(text):
        unit = (amount[2] or "").lower()
        return float(amount[1]) * (0.001 if unit.startswith("m") else 1.0 if unit else scale)
    if clock := _CLOCK.fullmatch(text):
        days, hours, minutes = (int(part or 0) for part in clock.groups()[:3])
        seconds = float(clock[4].replace(",", "."))
        if seconds < 60 and (minutes < 60 or clock[2] is None):
            return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return math.nan


def past_the_end(start: float | None, end: float | None, seconds: float, where: str) -> str:
    """What is wrong with a segment of a recording that lasts `seconds`, in one sentence; "" where it lies inside."""
    last = max(time for time in (start, end, 0.0) if time is not None)
    inside = start is None or start < seconds
    if inside and last <= seconds + TOLERANCE_SECONDS:
        return ""
    far = last > 20 * seconds and last / 1000 <= seconds + TOLERANCE_SECONDS
    hint = "are the times milliseconds? Name the column with the ending _ms" if far else "correct it"
    return f"{where}: the segment reaches {last:g} s, but the recording lasts {seconds:.3f} s; {hint}."
