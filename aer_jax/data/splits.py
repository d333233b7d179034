"""Train, validation and test: never the same speaker in two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aer_jax.corpora.base import Clip
from aer_jax.errors import UserError

SPLITS = ("train", "validation", "test")
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.20


def split_clips(clips: Sequence[Clip], seed: int) -> tuple[dict[str, list[str]], str]:
    """The corpus' own split where every clip has one, else speakers drawn with `seed`.

    Returns:
        split -> utterance ids in the clips' order, and in words how they were chosen.

    Raises:
        UserError: too few speakers, a split given for some clips only, an empty part, a speaker in two parts.
    """
    given = sum(clip.split is not None for clip in clips)
    if given == len(clips):
        how = "as the corpus says"
        part_of = {clip.id: clip.split for clip in clips}
    elif given:
        first = next(clip.id for clip in clips if clip.split is None)
        raise UserError(
            f"the corpus names a split for {given} of {len(clips)} clips ({first} has none); "
            "name it for all or for none."
        )
    else:
        how = f"by speaker, drawn with seed {seed}"
        speakers = draw_speakers({clip.speaker for clip in clips}, seed)
        part_of = {clip.id: speakers[clip.speaker] for clip in clips}
    splits = {part: [clip.id for clip in clips if part_of[clip.id] == part] for part in SPLITS}
    for part, ids in splits.items():
        if not ids:
            raise UserError(f"the corpus' own split leaves no usable clip for {part}; mend it or leave the split out.")
    assert_disjoint(splits, {clip.id: clip.speaker for clip in clips}, "the corpus' own split")
    return splits, how


def draw_speakers(speakers: set[str], seed: int) -> dict[str, str]:
    """speaker -> split: 20 % of the speakers test, 15 % validation (at least one each), the others train."""
    if len(speakers) < len(SPLITS):
        raise UserError(
            f"{len(speakers)} speaker(s) cannot be divided into train, validation and test, which must not "
            "share one; add speakers, or name the speaker of each clip."
        )
    order = np.random.default_rng(seed).permutation(sorted(speakers)).tolist()
    test = max(1, round(TEST_SHARE * len(order)))
    validation = max(1, round(VALIDATION_SHARE * len(order)))
    parts = ["test"] * test + ["validation"] * validation
    parts += ["train"] * (len(order) - len(parts))
    return dict(zip(order, parts, strict=True))


def assert_disjoint(splits: Mapping[str, Sequence[str]], speaker_of: Mapping[str, str], where: str) -> None:
    """Refuse splits that share an utterance or a speaker, or that name an unknown utterance."""
    part_of_speaker: dict[str, str] = {}
    seen: set[str] = set()
    for part, ids in splits.items():
        for id in ids:
            if id not in speaker_of or id in seen:
                why = "twice" if id in seen else "but the dataset has no such utterance"
                raise UserError(f"{where} names {id} {why}; mend it or prepare the dataset again.")
            seen.add(id)
            other = part_of_speaker.setdefault(speaker_of[id], part)
            if other != part:
                raise UserError(
                    f"{where} puts speaker {speaker_of[id]} into both {other} and {part}; "
                    "a speaker may be in one only, or the test measures memory."
                )
