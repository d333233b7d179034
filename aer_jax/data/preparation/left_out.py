"""Summary of what `prepare` left out: each reason with its count and the first example."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aer_jax.corpora.base import Clip
from aer_jax.data.audio.bad_audio import MISSING


class LeftOut(NamedTuple):
    """One reason: how many clips or rows, and the first of them, with the path looked for where audio is missing."""

    reason: str
    number: int
    first: str


def summarize(dropped: Mapping[str, Sequence[str]], clips: Sequence[Clip]) -> list[LeftOut]:
    """The reasons of `dropped` (reason -> ids or rows) in its order; `clips` are those of the corpus."""
    first = dropped.get(MISSING, [""])[0]
    audio = next((clip.audio for clip in clips if clip.id == first), None)
    return [
        LeftOut(reason, len(what), f"{first}, {_looked_for(audio)}" if reason == MISSING and audio else what[0])
        for reason, what in dropped.items()
    ]


def _looked_for(audio: Any) -> str:
    return f"{audio} is a folder" if isinstance(audio, Path) and os.path.isdir(audio) else f"looked for {audio}"


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
