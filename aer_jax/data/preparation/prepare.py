"""Preparation of a dataset directory: audio checked and stored, votes kept one by one, speakers split."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aer_jax.corpora import choose_classes
from aer_jax.corpora.base import Clip, Corpus
from aer_jax.data.dataset import Dataset, Utterance, open_dataset
from aer_jax.data.dataset_files import FORMAT
from aer_jax.data.preparation import shards
from aer_jax.data.preparation.data_report import Kept, write_report
from aer_jax.data.preparation.duplicates import Copy, find_copies, overlaps
from aer_jax.data.preparation.duplicates import notes as notes_on_copies
from aer_jax.data.preparation.left_out import in_words, summarize
from aer_jax.data.preparation.splits import Rule, parse_rule, shared_speakers, split_clips
from aer_jax.data.preparation.transcripts import cut_transcripts
from aer_jax.errors import UserError
from aer_jax.files.content_hash import file_sha256, seal
from aer_jax.labels.votes import Votes

NO_VOTE = "no vote"
NO_VOTE_INSIDE = "no vote inside the classes"
VOTE_OUTSIDE = "a vote outside the classes"
OUTSIDE = ("renormalise", "drop")


def prepare(
    corpus: Corpus,
    out: str | Path,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    split: str | None = None,
    outside: str = "renormalise",
) -> Dataset:
    """Write a dataset directory; it appears under its name only when it is complete.

    Clips without a usable vote or usable audio are left out and counted in `report.md`. A run that was killed is
    continued by calling again: record shards that it finished for the same clips are taken over. Transcripts are cut at
    `transcripts.LONGEST_TRANSCRIPT` characters, which is said.

    Args:
        corpus: what a reader returned.
        out: the directory to make.
        classes: the classes, in order; None takes `corpus.classes`.
        seed: of what the split draws.
        split: as `aer_jax.data.preparation.splits.parse_rule` reads it; None is the corpus' own, else by speaker.
        outside: of clips with votes outside the classes, "renormalise" keeps those that have a vote inside, their
            distributions being over the classes alone; "drop" keeps only clips all of whose votes are inside.

    Raises:
        UserError: `out` is taken or cannot be written, a class or choice is unknown, or no clip is usable.
    """
    out = Path(out)
    corpus = cut_transcripts(corpus)
    chosen = choose_classes(corpus, classes)
    if outside not in OUTSIDE:
        raise UserError(f'outside is "{outside}"; known: {", ".join(OUTSIDE)}.')
    rule = parse_rule(split, corpus.clips)
    dropped = {reason: list(what) for reason, what in corpus.dropped.items()}
    candidates = list(_candidates(corpus, chosen, outside, rule, dropped))
    if candidates:
        _divide(corpus, candidates, seed, rule, dropped)  # a split that cannot be is said before hours of encoding
    _refuse_taken(out)
    with _partial_of(out) as partial:
        stored = shards.store(candidates, partial)
        for id, reason in stored.unusable.items():
            dropped.setdefault(reason, []).append(id)
        kept = [clip for clip in candidates if clip.id in stored.stored]
        copies = find_copies(kept, {id: one.digest for id, one in stored.stored.items()})
        if not kept:
            left_out = summarize(dropped, corpus.clips)
            why = "; ".join(f"{one.reason}: {one.number}" for one in left_out) or "it has none"
            first = ", ".join(f"{one.first} ({one.reason})" for one in left_out)
            raise UserError(
                f"no clip of the corpus {corpus.name} is usable ({why}){first and f'; the first: {first}'}."
            )
        settings = {"seed": seed, "split": split or rule.kind, "outside": outside, "lenient": corpus.lenient}
        _write(corpus, partial, chosen, kept, stored, copies, rule, settings | corpus.choices, dropped)
        shards.forget(partial)
        (partial / shards.LOCK).unlink()
        os.rename(partial, out)
    return open_dataset(out)


def _refuse_taken(out: Path) -> None:
    if (out / "dataset.json").exists():
        raise UserError(f"{out} holds a finished dataset already; remove it or choose another --out.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; choose another --out.")


@contextmanager
def _partial_of(out: Path) -> Iterator[Path]:
    """The directory that becomes `out`; it stays behind, to go on from, where a run is interrupted by force."""
    partial = out.parent / f".{out.name}.partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / shards.LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another prepare is writing {out}; wait for it or choose another --out.") from None
            try:
                yield partial
            except BaseException as error:
                if isinstance(error, UserError) or not shards.any_finished(partial):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        why = f"cannot write the dataset {out}: {error.strerror}; choose another place for --out."
        if error.errno == errno.ENOSPC:
            why = f"the disk of {out} is full; free space, or choose another place for --out."
        if partial.is_dir():
            why += f" What is finished stays in {partial}, and the same command goes on from it."
        raise UserError(why) from None


def _candidates(
    corpus: Corpus, classes: tuple[str, ...], outside: str, rule: Rule, dropped: dict[str, list[str]]
) -> Iterator[Clip]:
    seen: set[str] = set()
    for clip in corpus.clips:
        if clip.id in seen:
            raise UserError(f"{corpus.name} holds two clips {clip.id}; ids are unique.")
        seen.add(clip.id)
        inside = [vote.label in classes for vote in clip.votes if vote.weight > 0]
        reason = rule.leaves_out(clip)
        if not inside:
            reason = NO_VOTE
        elif not any(inside):
            reason = NO_VOTE_INSIDE
        elif outside == "drop" and not all(inside):
            reason = VOTE_OUTSIDE
        if reason:
            dropped.setdefault(reason, []).append(clip.id)
        else:
            yield clip


def _divide(
    corpus: Corpus, clips: list[Clip], seed: int, rule: Rule, dropped: dict[str, list[str]]
) -> tuple[dict[str, list[str]], str]:
    try:
        return split_clips(clips, seed, rule)
    except UserError as error:
        if not dropped:
            raise
        raise UserError(f"{error} Left out before: {in_words(summarize(dropped, corpus.clips))}.") from None


def _write(
    corpus: Corpus,
    folder: Path,
    classes: tuple[str, ...],
    kept: list[Clip],
    stored: shards.Store,
    copies: list[Copy],
    rule: Rule,
    settings: dict[str, Any],
    dropped: dict[str, list[str]],
) -> None:
    """Write all files next to the shards, `dataset.json` last; deterministic."""
    splits, how = _divide(corpus, kept, settings["seed"], rule, dropped)
    part_of = {id: part for part, ids in splits.items() for id in ids}
    notes = [*corpus.notes, *rule.notes, *notes_on_copies(copies, part_of), *overlaps(kept, part_of)]
    utterances = [
        Utterance(clip.id, clip.speaker, clip.transcript, place.seconds, place.shard, place.row, place.digest)
        for clip in kept
        if (place := stored.stored[clip.id])
    ]
    votes = Votes(vote for clip in kept for vote in clip.votes)
    apart = rule.keeps_speakers_apart
    _write_lines(folder / "utterances.jsonl", (dataclasses.asdict(u) for u in utterances))
    _write_lines(folder / "votes.jsonl", (dataclasses.asdict(v) for v in votes))
    split_file = {"seed": settings["seed"], "how": how, "speakers_apart": apart, **splits}
    _write_json(folder / "splits.json", split_file)
    write_report(
        folder,
        Kept(
            corpus=corpus.name,
            classes=classes,
            found=len(corpus.clips),
            utterances=utterances,
            votes=votes,
            splits=splits,
            how=how,
            shared_speakers=0 if apart else shared_speakers(splits, {clip.id: clip.speaker for clip in kept}),
            speakers_apart=apart,
            scaled=[clip.id for clip in kept if stored.stored[clip.id].scaled],
            dropped=dropped,
            settings=settings,
            notes=notes,
            licensed=corpus.licensed,
            speed=_speed(stored),
        ),
    )
    about = _about(corpus, folder, kept, stored, settings, dropped)
    about |= {"classes": list(classes), "notes": notes}
    about["counts"]["votes"] = len(votes)
    _write_json(folder / "dataset.json", seal(about))


def _about(
    corpus: Corpus,
    folder: Path,
    kept: list[Clip],
    stored: shards.Store,
    settings: dict[str, Any],
    dropped: dict[str, list[str]],
) -> dict[str, Any]:
    speakers = sorted({clip.speaker for clip in kept})
    files = ("utterances.jsonl", "votes.jsonl", "splits.json")
    return {
        "format": FORMAT,
        "corpus": corpus.name,
        "licensed": corpus.licensed,
        "shards": len(stored.sha256),
        "counts": {
            "found": len(corpus.clips),
            "kept": len(kept),
            "speakers": len(speakers),
            "dropped": {reason: len(what) for reason, what in dropped.items()},
        },
        "speakers": {speaker: corpus.speakers[speaker] for speaker in speakers if speaker in corpus.speakers},
        "left_out": [list(one) for one in summarize(dropped, corpus.clips)],
        "settings": settings | {"audio": "FLAC, 16 bit, mono, at the source's rate"},
        "sha256": {name: file_sha256(folder / name) for name in files} | stored.sha256,
        "bytes": {name: (folder / name).stat().st_size for name in stored.sha256},
    }


def _speed(stored: shards.Store) -> str:
    sentences = f"{stored.taken_over:,} clips were taken over from an interrupted run. " if stored.taken_over else ""
    if stored.encoded:
        rate = stored.encoded / stored.seconds
        sentences += (
            f"Prepared at {rate:,.0f} clips/s on {shards.cores()} core(s); "
            f"100,000 such clips would take {100_000 / rate / 60:,.1f} minutes."
        )
    return sentences.strip()


def _write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
