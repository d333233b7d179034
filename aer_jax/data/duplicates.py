"""The same audio under several ids or speakers: it could be in training and test at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aer_jax.corpora.base import Clip

SEVERAL_SPEAKERS = "same audio under several speakers"


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


def notes(copies: Sequence[Copy], part_of: Mapping[str, str]) -> list[str]:
    """Sentences about the copies that a dataset keeps.

    Args:
        copies: of clips in the dataset.
        part_of: clip id -> split.
    """
    sentences = []
    for several, whose in ((False, "of their speaker"), (True, "of another speaker, as the corpus ships them")):
        some = [copy for copy in copies if copy.several_speakers == several]
        divided = sum(part_of[copy.id] != part_of[copy.other] for copy in some)
        if some:
            where = f"; {divided:,} of them are in another split than that clip" if divided else ""
            sentences.append(
                f"{len(some):,} clips have the same audio as another clip {whose}, the first {some[0].id} "
                f"(also {some[0].other}){where}."
            )
    return sentences
