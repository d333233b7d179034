"""Duplicate audio under several ids or speakers, which could be in training and test at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from aer_jax.corpora.base import Clip
from aer_jax.corpora.tables.times import TOLERANCE_SECONDS


class Copy(NamedTuple):
    """A clip whose audio another clip has too; whether known speakers of that audio differ."""

    id: str
    other: str
    several_speakers: bool


def find_copies(clips: Sequence[Clip], digest_of: Mapping[str, str]) -> list[Copy]:
    """All clips that share their audio, each with the first other one.

    Args:
        clips: in order.
        digest_of: clip id -> digest of its audio as it is stored: the same samples, whatever the file.
    """
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(digest_of[clip.id], []).append(clip)
    copies = []
    for same in groups.values():
        several = len({clip.speaker for clip in same if not clip.speaker_unknown}) > 1
        for clip in same if len(same) > 1 else ():
            other = same[1] if clip is same[0] else same[0]
            copies.append(Copy(clip.id, other.id, several))
    return copies


def overlaps(clips: Sequence[Clip], part_of: Mapping[str, str]) -> list[str]:
    """A sentence about clips that share some of a recording with a clip of another speaker in another split.

    Voices that overlap in a dialogue do so, and so does a whole recording whose segments other lines name.

    Args:
        clips: of the dataset.
        part_of: clip id -> split.
    """
    recordings: dict[Path, list[Clip]] = {}
    for clip in clips:
        if isinstance(clip.audio, Path):
            recordings.setdefault(clip.audio, []).append(clip)
    pairs: list[tuple[str, str]] = []
    for same in recordings.values():
        last: dict[tuple[str, str], tuple[float, str]] = {}  # speaker and split -> the latest end so far, and whose
        for clip in sorted(same, key=lambda clip: clip.start or 0.0) if len(same) > 1 else ():
            whose = clip.speaker, part_of[clip.id]
            for other, (end, id) in last.items():
                if other[0] != whose[0] and other[1] != whose[1] and end > (clip.start or 0.0) + TOLERANCE_SECONDS:
                    pairs.append((clip.id, id))
                    break
            end = math.inf if clip.end is None else clip.end
            last[whose] = max(last.get(whose, (end, clip.id)), (end, clip.id))
    if not pairs:
        return []
    first, with_ = pairs[0]
    return [
        f"{len(pairs):,} clips share a part of their recording with a clip of another speaker in another split, the "
        f"first {first} (with {with_}): one split holds sound of another."
    ]


def notes(copies: Sequence[Copy], part_of: Mapping[str, str]) -> list[str]:
    """Sentences about the copies that a dataset keeps.

    Args:
        copies: of clips in the dataset.
        part_of: clip id -> split.
    """
    sentences = []
    for several, whose in ((False, "of their speaker"), (True, "of another speaker")):
        some = [copy for copy in copies if copy.several_speakers == several]
        divided = sum(part_of[copy.id] != part_of[copy.other] for copy in some)
        if some:
            where = f"; {divided:,} of them are in another split than that clip" if divided else ""
            if several:
                where += "; at most one speaker is right: correct the table, or keep them in one part with --split FILE"
            sentences.append(
                f"{len(some):,} clips have the same audio as another clip {whose}, the first {some[0].id} "
                f"(also {some[0].other}){where}."
            )
    return sentences
