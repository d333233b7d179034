"""What `prepare` left out, in few words: each reason with its count and the first example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aer_jax.corpora.base import Clip


class LeftOut(NamedTuple):
    """One reason: how many clips or rows, and the first of them, with the path looked for where audio is missing."""

    reason: str
    number: int
    first: str


def summarize(dropped: Mapping[str, Sequence[str]], clips: Sequence[Clip]) -> list[LeftOut]:
    """The reasons of `dropped` (reason -> ids or rows) in its order; `clips` are those of the corpus."""
    wanted = {what[0] for what in dropped.values()}
    audio_of = {clip.id: clip.audio for clip in clips if clip.id in wanted}
    return [LeftOut(reason, len(what), _example(what[0], audio_of.get(what[0]))) for reason, what in dropped.items()]


def _example(what: str, audio: Any) -> str:
    missing = isinstance(audio, Path) and not _exists(audio)
    return f"{what}, looked for {audio}" if missing else what


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a null
        return False


def in_words(left_out: Sequence[LeftOut]) -> str:
    """For the middle of a sentence: "no vote: 3 (the first a7); audio file missing: 1 (...)"."""
    return "; ".join(f"{reason}: {number:,} (the first {first})" for reason, number, first in left_out)


def screen_text(about: Mapping[str, Any], splits: Mapping[str, Sequence[str]], path: Path) -> str:
    """What `aer-jax prepare` prints about a dataset, from its dataset.json."""
    counts = about["counts"]
    parts = ", ".join(f"{len(ids):,} {part}" for part, ids in splits.items())
    lines = [
        f"{path}: {counts['kept']:,} of {counts['found']:,} clips kept: {parts}; see {path / 'report.md'}",
        f"classes: {', '.join(about['classes'])}",
    ]
    if about["left_out"]:
        lines.append(f"left out or not read: {in_words([LeftOut(*one) for one in about['left_out']])}")
    return "\n".join([*lines, *about["notes"]])
