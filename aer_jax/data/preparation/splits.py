"""Splits into train, validation and test, speaker-disjoint but for the paper's random split or a file's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aer_jax.corpora.base import Clip
from aer_jax.corpora.tables.read import SUFFIXES
from aer_jax.data.preparation.split_file import SplitFile, read_split_file
from aer_jax.errors import UserError

SPLITS = ("train", "validation", "test")
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.20
RULES = "speakers, fold:I/K, session:S, official, official:PARTS, random, or a file of ids or speakers and parts"
# The paper's shares: a fifth to test, of the others a tenth to validate.
_RANDOM_TEST, _RANDOM_VALIDATION = 0.20, 0.10


@dataclass(frozen=True)
class Rule:
    """How a corpus is divided.

    Attributes:
        kind: "speakers", "fold", "session", "official", "random" or "file".
        fold: which fold is the test, from 1; of a `fold`.
        folds: how many there are.
        session: the session that is the test.
        tests: the official partitions that make the test; the corpus' others other than train and validation stay out.
        file: what the file says; of a `file`.
    """

    kind: str
    fold: int = 0
    folds: int = 0
    session: str = ""
    tests: tuple[str, ...] = ("test", "test1")
    file: SplitFile | None = None

    @property
    def keeps_speakers_apart(self) -> bool:
        """False for the paper's split, and for a file that puts a speaker into two parts."""
        return self.kind != "random" and not (self.file and self.file.shared)

    @property
    def notes(self) -> list[str]:
        """Notes for the data report."""
        return self.file.notes() if self.file else []

    def part(self, clip: Clip) -> str | None:
        """The part that the corpus itself or a file gives a clip."""
        return self.file.part_of.get(clip.id) if self.file else clip.split

    def leaves_out(self, clip: Clip) -> str | None:
        """Why the rule excludes this clip, or None."""
        if self.kind in ("speakers", "fold") and clip.speaker_unknown:
            return "speaker unknown, may be anybody of any split"
        if self.kind not in ("official", "file"):
            return None
        part = self.part(clip)
        if self.file and part is None:
            return f"in no part of {self.file.name}"
        if not self.file and part and part not in ("train", "validation", *self.tests):
            return f"official partition {part}, not used"
        if part and part != "train" and clip.speaker_unknown:
            return "speaker unknown outside training, may be anybody of the training split"
        return None


def parse_rule(text: str | None, clips: Sequence[Clip]) -> Rule:
    """A `--split` in words as a rule; None is the corpus' own split where it has one, else speakers.

    Args:
        text: `speakers`; `fold:2/5`, the second of five folds of the speakers; `session:3`; `official`, or
            `official:test2` and `official:test1+test2` where a corpus has several tests; `random`; or the path of a
            file, see `read_split_file`.
        clips: those to be divided.

    Raises:
        UserError: it is none of these, the corpus has no sessions or no split of its own, or the file is none.
    """
    if text is None:
        text = "official" if any(clip.split for clip in clips) else "speakers"
    kind, colon, detail = text.partition(":")
    if kind in ("speakers", "random") and not colon:
        return Rule(kind)
    if kind == "fold" and (match := re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", detail)):
        fold, folds = int(match[1]), int(match[2])
        if folds < 3 or not 1 <= fold <= folds:
            raise UserError(f"--split {text}: fold I of K needs K of at least 3 and I from 1 to K, for instance 1/5.")
        return Rule(kind, fold=fold, folds=folds)
    if kind == "session" and detail:
        sessions = sorted({clip.session for clip in clips} - {""})
        if detail not in sessions:
            raise UserError(f"--split {text}: no such session; the corpus has {', '.join(sessions) or 'none'}.")
        return Rule(kind, session=detail)
    if kind == "official" and bool(colon) == bool(detail):
        parts = {clip.split for clip in clips if clip.split}
        if not parts:
            raise UserError(f"--split {text}: the corpus has no split of its own; known: {RULES}.")
        others = tuple(sorted(parts - {"train", "validation"}))
        usual = Rule(kind).tests
        tests = tuple(detail.split("+")) if detail else usual if {*usual} & parts or not others else others
        for test in tests if detail else ():
            if test not in parts or test in ("train", "validation"):
                own = ", ".join(others) or "none"
                raise UserError(f'--split {text}: "{test}" is no test of the corpus; it has {own}.')
        return Rule(kind, tests=tests)
    if _is_path(text):
        return Rule("file", file=read_split_file(Path(text), clips))
    raise UserError(f'unknown split "{text}"; known: {RULES}.')


def _is_path(text: str) -> bool:
    try:
        return Path(text).suffix.casefold() in SUFFIXES or Path(text).is_file()
    except OSError:  # a name too long
        return False


def split_clips(clips: Sequence[Clip], seed: int, rule: Rule | None = None) -> tuple[dict[str, list[str]], str]:
    """Divide clips, none of which the rule leaves out.

    Args:
        clips: at least one of each part must come of them.
        seed: of what is drawn.
        rule: how; None as `parse_rule` chooses.

    Returns:
        split -> utterance ids in the clips' order, and in words how they were chosen.

    Raises:
        UserError: too few speakers, a split given for some clips only, an empty part, a speaker in two parts.
    """
    rule = rule or parse_rule(None, clips)
    part_of, how = {
        "speakers": _by_speaker,
        "fold": _by_fold,
        "session": _by_session,
        "official": _as_given,
        "random": _at_random,
        "file": _as_the_file_says,
    }[rule.kind](clips, seed, rule)
    splits = {part: [clip.id for clip in clips if part_of[clip.id] == part] for part in SPLITS}
    where = {"official": "the corpus' own split", "file": str(rule.file and rule.file.name)}.get(rule.kind, "the split")
    for part, ids in splits.items():
        if not ids:
            sizes = ", ".join(f"{len(ids)} {part}" for part, ids in splits.items())
            raise UserError(
                f"{where} leaves no usable clip for {part} ({sizes}); change it, or draw all three parts with --split "
                "speakers."
            )
    assert_splits(splits, {clip.id: clip.speaker for clip in clips}, where, rule.keeps_speakers_apart)
    return splits, how


def _as_given(clips: Sequence[Clip], seed: int, rule: Rule) -> tuple[dict[str, str], str]:
    given = [clip for clip in clips if clip.split is not None]
    if len(given) < len(clips):
        first = next(clip.id for clip in clips if clip.split is None)
        raise UserError(
            f"the corpus names a split for {len(given)} of {len(clips)} clips ({first} has none); "
            "name it for all or for none."
        )
    part_of = {clip.id: "test" if clip.split in rule.tests else str(clip.split) for clip in clips}
    tests = sorted({test for test in rule.tests if any(clip.split == test for clip in clips)})
    return part_of, "as the corpus says" + ("" if tests == ["test"] else f", the test being {' and '.join(tests)}")


def _as_the_file_says(clips: Sequence[Clip], seed: int, rule: Rule) -> tuple[dict[str, str], str]:
    assert rule.file
    return {clip.id: rule.file.part_of[clip.id] for clip in clips}, f"by {rule.file.by}, as {rule.file.name} says"


def _by_speaker(clips: Sequence[Clip], seed: int, rule: Rule) -> tuple[dict[str, str], str]:
    part_of_speaker = draw_speakers({clip.speaker for clip in clips}, seed)
    return {clip.id: part_of_speaker[clip.speaker] for clip in clips}, f"by speaker, drawn with seed {seed}"


def _by_fold(clips: Sequence[Clip], seed: int, rule: Rule) -> tuple[dict[str, str], str]:
    """The speakers are dealt to the folds in an order drawn with `seed`; the next fold after the test validates."""
    speakers = sorted({clip.speaker for clip in clips})
    if len(speakers) < rule.folds:
        raise UserError(f"{len(speakers)} speaker(s) cannot be dealt to {rule.folds} folds; choose fewer.")
    order = np.random.default_rng(seed).permutation(speakers).tolist()
    part_of = _rotate({speaker: i % rule.folds for i, speaker in enumerate(order)}, rule.fold - 1, rule.folds)
    how = f"by speaker, fold {rule.fold} of {rule.folds} the test and the next one validation, dealt with seed {seed}"
    return {clip.id: part_of[clip.speaker] for clip in clips}, how


def _by_session(clips: Sequence[Clip], seed: int, rule: Rule) -> tuple[dict[str, str], str]:
    sessions = sorted({clip.session for clip in clips})
    if len(sessions) < 3 or rule.session not in sessions:
        raise UserError(
            f"session {rule.session} cannot be the test: usable clips come from session {', '.join(sessions)}, and "
            "train, validation and test need one each."
        )
    places = {session: i for i, session in enumerate(sessions)}
    part_of = _rotate(places, places[rule.session], len(sessions))
    validation = next(session for session, part in part_of.items() if part == "validation")
    how = f"by session, {rule.session} the test and {validation} validation"
    return {clip.id: part_of[clip.session] for clip in clips}, how


def _rotate(fold_of: Mapping[str, int], test: int, folds: int) -> dict[str, str]:
    parts = {test: "test", (test + 1) % folds: "validation"}
    return {group: parts.get(fold, "train") for group, fold in fold_of.items()}


def _at_random(clips: Sequence[Clip], seed: int, rule: Rule) -> tuple[dict[str, str], str]:
    """The paper's: utterances, whoever speaks, by scikit-learn's draw as in its code (there with seed 42)."""
    from sklearn.model_selection import train_test_split

    if len(clips) < len(SPLITS):
        raise UserError(f"{len(clips)} clip(s) cannot be divided into train, validation and test.")
    ids = [clip.id for clip in clips]
    others, test = train_test_split(ids, test_size=_RANDOM_TEST, random_state=seed)
    _, validation = train_test_split(others, test_size=_RANDOM_VALIDATION, random_state=seed)
    part_of = dict.fromkeys(ids, "train") | dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
    return part_of, f"at random by utterance with seed {seed}, as the paper does"


def draw_speakers(speakers: set[str], seed: int) -> dict[str, str]:
    """speaker -> split: 20% of the speakers test, 15% validation (at least one each), the others train."""
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


def assert_splits(
    splits: Mapping[str, Sequence[str]], speaker_of: Mapping[str, str], where: str, speakers_apart: bool = True
) -> None:
    """Refuse splits that share an utterance or, unless told otherwise, a speaker, or that name an unknown utterance."""
    part_of_speaker: dict[str, str] = {}
    seen: set[str] = set()
    for part, ids in splits.items():
        for id in ids:
            if id not in speaker_of or id in seen:
                why = "twice" if id in seen else "but the dataset has no such utterance"
                raise UserError(f"{where} names {id} {why}; fix it or prepare the dataset again.")
            seen.add(id)
            other = part_of_speaker.setdefault(speaker_of[id], part)
            if speakers_apart and other != part:
                raise UserError(
                    f"{where} puts speaker {speaker_of[id]} into both {other} and {part}; "
                    "a speaker may be in one only, or the test measures memory."
                )


def shared_speakers(splits: Mapping[str, Sequence[str]], speaker_of: Mapping[str, str]) -> int:
    """How many speakers are in more than one part."""
    parts = Counter(speaker for ids in splits.values() for speaker in {speaker_of[id] for id in ids})
    return sum(n > 1 for n in parts.values())
