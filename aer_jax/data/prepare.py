"""A corpus becomes a dataset directory: audio checked and stored, votes kept one by one, speakers split."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.corpora import choose_classes
from aer_jax.corpora.base import Clip, Corpus
from aer_jax.data.audio import BadAudio, decode, encode_flac, usable
from aer_jax.data.data_report import Kept, data_report
from aer_jax.data.dataset import FORMAT, Dataset, Utterance, open_dataset
from aer_jax.data.records import Record, RecordWriter
from aer_jax.data.splits import split_clips
from aer_jax.errors import UserError

NO_VOTE = "no vote"
NO_VOTE_INSIDE = "no vote inside the classes"
# Decoded side by side and written in order; it bounds what waits in memory.
_BLOCK = 256


@dataclass(frozen=True)
class _Encoded:
    flac: bytes
    rate: int
    seconds: float
    scaled: bool


def prepare(corpus: Corpus, out: str | Path, classes: Sequence[str] | None = None, seed: int = 0) -> Dataset:
    """Write a dataset directory; it appears under its name only when it is complete.

    Clips without a usable vote or usable audio are left out and counted in `report.md`.

    Args:
        corpus: what a reader returned.
        out: the directory to make.
        classes: the classes, in order; None takes `corpus.classes`.
        seed: draws the speakers of train, validation and test.

    Raises:
        UserError: `out` is taken or cannot be written, a class is unknown, or no clip is usable.
    """
    out = Path(out)
    chosen = choose_classes(corpus, classes)
    _refuse_taken(out)
    partial = out.parent / f".{out.name}.partial"
    try:
        # What a killed run left behind goes first.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _write(corpus, partial, chosen, seed)
            os.rename(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"the disk of {out} is full; free space or choose another place for --out.") from None
        raise UserError(f"cannot write the dataset {out}: {error.strerror}; choose another place for --out.") from None
    return open_dataset(out)


def _refuse_taken(out: Path) -> None:
    if (out / "dataset.json").exists():
        raise UserError(f"{out} holds a finished dataset already; remove it or choose another --out.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; choose another --out.")


def _write(corpus: Corpus, folder: Path, classes: tuple[str, ...], seed: int) -> None:
    """All files of the dataset, `dataset.json` last."""
    dropped = {reason: list(what) for reason, what in corpus.dropped.items()}

    def drop(reason: str, id: str) -> None:
        dropped.setdefault(reason, []).append(id)

    candidates = []
    for clip in corpus.clips:
        if not any(vote.weight > 0 for vote in clip.votes):
            drop(NO_VOTE, clip.id)
        elif not any(vote.label in classes and vote.weight > 0 for vote in clip.votes):
            drop(NO_VOTE_INSIDE, clip.id)
        else:
            candidates.append(clip)

    kept: list[Clip] = []
    utterances: list[Utterance] = []
    scaled: list[str] = []
    with RecordWriter(folder) as writer:
        for clip, audio in _encode_all(candidates):
            if isinstance(audio, BadAudio):
                drop(audio.reason, clip.id)
                continue
            shard, row = writer.add(Record(clip.id, clip.speaker, clip.transcript, audio.rate, audio.flac))
            utterances.append(Utterance(clip.id, clip.speaker, clip.transcript, audio.seconds, shard, row))
            kept.append(clip)
            if audio.scaled:
                scaled.append(clip.id)
    if not kept:
        why = "; ".join(f"{reason}: {len(ids)}" for reason, ids in dropped.items()) or "it has none"
        raise UserError(f"no clip of the corpus {corpus.name} is usable ({why}).")

    splits, how = split_clips(kept, seed)
    votes = [vote for clip in kept for vote in clip.votes]
    _write_lines(folder / "utterances.jsonl", (dataclasses.asdict(u) for u in utterances))
    _write_lines(folder / "votes.jsonl", (dataclasses.asdict(v) for v in votes))
    _write_json(folder / "splits.json", {"seed": seed, "how": how, **splits})
    summary = Kept(corpus.name, classes, len(corpus.clips), utterances, votes, splits, how, scaled, dropped)
    (folder / "report.md").write_text(data_report(summary), "utf-8", "backslashreplace")
    about = {
        "format": FORMAT,
        "corpus": corpus.name,
        "classes": list(classes),
        "licensed": corpus.licensed,
        "shards": writer.shards,
        "counts": {
            "found": len(corpus.clips),
            "kept": len(kept),
            "votes": len(votes),
            "speakers": len({clip.speaker for clip in kept}),
            "dropped": {reason: len(ids) for reason, ids in dropped.items()},
        },
        "settings": {"seed": seed, "audio": "FLAC, 16 bit, mono, at the source's rate"},
    }
    _write_json(folder / "dataset.json", about)


def _encode_all(clips: Sequence[Clip]) -> Iterator[tuple[Clip, _Encoded | BadAudio]]:
    """Every clip with its audio, in order; decoded on all cores (libsndfile lets go of the GIL)."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(clips), desc="prepare", unit="clip") as progress,
    ):
        for start in range(0, len(clips), _BLOCK):
            block = clips[start : start + _BLOCK]
            for clip, audio in zip(block, pool.map(_encode, block), strict=True):
                progress.update()
                yield clip, audio


def _encode(clip: Clip) -> _Encoded | BadAudio:
    try:
        raw = decode(clip.audio) if isinstance(clip.audio, Path) else clip.audio
        waveform, scaled = usable(raw, clip.id)
        return _Encoded(encode_flac(waveform), waveform.rate, len(waveform.samples) / waveform.rate, scaled)
    except BadAudio as bad:
        return bad


def _write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
