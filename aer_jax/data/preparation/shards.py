"""Writing of record shards, one after another; an interrupted run keeps the finished ones.

The clips are cut into shards before anything is decoded. Beside each finished shard lies a JSON file with what went
into it and its hash, so that a later run that finds the same clips takes the shard over.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.corpora.base import Clip, Waveform
from aer_jax.corpora.tables.times import past_the_end
from aer_jax.data.audio.read import BadAudio, decode, encode_flac, usable
from aer_jax.data.records import Record, ShardWriter, shard_name
from aer_jax.files.atomic import replace_text
from aer_jax.files.content_hash import file_sha256

SHARD_BYTES = 256 * 2**20  # of the clips as they are on disk
_SEGMENT_BYTES = 32_000  # assumed of a second, so that a long recording does not count again with each of its segments
LOCK = "lock"
_SIDES = "records-*.json"
# Part of every shard's key: raise its number when the same clip would be stored in another way.
ENCODING = "FLAC, 16 bit, mono, at the source's rate; 3"


@dataclass(frozen=True)
class Stored:
    """A stored clip: place of its record, seconds, whether it was scaled down from above full scale, digest."""

    shard: int
    row: int
    seconds: float
    scaled: bool
    digest: str


@dataclass
class Store:
    """Result of `store`: id -> record, id -> why it is unusable, file -> SHA-256, and speed."""

    stored: dict[str, Stored]
    unusable: dict[str, str]
    sha256: dict[str, str]
    taken_over: int = 0
    encoded: int = 0
    seconds: float = 0.0


def store(clips: Sequence[Clip], folder: Path) -> Store:
    """Write the record shards of `clips` into `folder`, or keep those that an earlier run finished there.

    Args:
        clips: in record order.
        folder: what else lies in it is removed.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    plans = list(_cut(clips))
    names = [shard_name(i, len(plans)) for i in range(len(plans))]
    expected = {*names, *map(_side_name, names)}
    for path in folder.iterdir():
        if path.name not in expected and path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = Store({}, {}, {})
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(total=len(clips), desc="prepare", unit="clip") as progress,
    ):
        for shard, (name, (part, key)) in enumerate(zip(names, plans, strict=True)):
            about = _finished(folder / name, key)
            if about is None:
                start = time.perf_counter()
                about = _write(part, key, folder / name, pool, progress)
                done.encoded += len(part)
                done.seconds += time.perf_counter() - start
            else:
                done.taken_over += len(part)
                progress.update(len(part))
            done.sha256[name] = about["sha256"]
            done.unusable |= about["unusable"]
            for row, (id, seconds, scaled, digest) in enumerate(about["rows"]):
                done.stored[id] = Stored(shard, row, seconds, scaled, digest)
    return done


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def any_finished(folder: Path) -> bool:
    """Whether there is a finished shard that a later run could keep."""
    return any(folder.glob(_SIDES))


def forget(folder: Path) -> None:
    """Remove the files that only continuing an interrupted run needs."""
    for path in folder.glob(_SIDES):
        path.unlink()


def _cut(clips: Sequence[Clip]) -> Iterator[tuple[list[Clip], str]]:
    part: list[Clip] = []
    digest, size = hashlib.sha256(ENCODING.encode()), 0
    for clip in clips:
        what, bytes_ = _identity(clip)
        if clip.is_segment:
            what += [clip.start, clip.end]
            seconds = (math.inf if clip.end is None else clip.end) - (clip.start or 0.0)
            bytes_ = int(min(bytes_, _SEGMENT_BYTES * seconds))
        part.append(clip)
        digest.update(json.dumps([clip.id, clip.speaker, clip.transcript, *what]).encode())
        size += bytes_
        if size >= SHARD_BYTES:
            yield part, digest.hexdigest()
            part, digest, size = [], hashlib.sha256(ENCODING.encode()), 0
    if part:
        yield part, digest.hexdigest()


def _identity(clip: Clip) -> tuple[list[Any], int]:
    if not isinstance(clip.audio, Path):
        return [hashlib.sha256(clip.audio.samples.tobytes()).hexdigest(), clip.audio.rate], clip.audio.samples.nbytes
    try:
        status = clip.audio.stat()
    except (OSError, ValueError):
        return [str(clip.audio), None], 0
    return [str(clip.audio), status.st_size, status.st_mtime_ns], status.st_size


def _side_name(name: str) -> str:
    return name.replace(".array_record", ".json")


def _finished(path: Path, key: str) -> dict[str, Any] | None:
    """What the file next to a shard says, if the shard is of these clips and whole."""
    try:
        about = json.loads(path.with_name(_side_name(path.name)).read_bytes())
        return about if about["key"] == key and about["sha256"] == file_sha256(path) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(clips: Sequence[Clip], key: str, path: Path, pool: ThreadPoolExecutor, progress: tqdm) -> dict[str, Any]:
    rows: list[tuple[str, float, bool, str]] = []
    unusable: dict[str, str] = {}
    partial = path.with_name(f"{path.name}.partial")
    with ShardWriter(partial) as writer:
        encoded = itertools.chain.from_iterable(_in_order(pool, _encode, _recordings(clips)))
        for clip, audio in zip(clips, encoded, strict=True):
            progress.update()
            if isinstance(audio, BadAudio):
                unusable[clip.id] = audio.reason
            else:
                writer.add(Record(clip.id, clip.speaker, clip.transcript, audio.rate, audio.flac))
                rows.append((clip.id, audio.seconds, audio.scaled, hashlib.sha256(audio.flac).hexdigest()))
    about = {"key": key, "sha256": file_sha256(partial), "rows": rows, "unusable": unusable}
    partial.rename(path)
    replace_text(path.with_name(_side_name(path.name)), json.dumps(about))
    return about


def _in_order(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Sequence[Any]]) -> Iterator[Any]:
    """`pool.map` that starts only a few items ahead of what is taken, so that little waits in memory."""
    waiting: deque[Future] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        ahead = cores() if len(item) > 1 else 16 * cores()  # an hour in segments is no clip
        while len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass(frozen=True)
class _Encoded:
    flac: bytes
    rate: int
    seconds: float
    scaled: bool


def _recordings(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    """Consecutive segments of one recording together, other clips alone."""

    def recording(clip: Clip) -> tuple[bool, str]:
        together = clip.is_segment and isinstance(clip.audio, Path)
        return together, str(clip.audio) if together else clip.id

    return (list(part) for _, part in itertools.groupby(clips, recording))


def _encode(clips: Sequence[Clip]) -> list[_Encoded | BadAudio]:
    """What is stored of each of a recording's clips; the recording is decoded once."""
    # libsndfile and FFmpeg let go of the interpreter's lock, so threads are enough.
    audio = clips[0].audio
    try:
        raw = decode(audio) if isinstance(audio, Path) else audio
    except BadAudio as bad:
        return [bad] * len(clips)
    return [_encode_clip(clip, raw) for clip in clips]


def _encode_clip(clip: Clip, raw: Waveform) -> _Encoded | BadAudio:
    try:
        waveform, scaled = usable(_cut_out(clip, raw), clip.where or clip.id)
        return _Encoded(encode_flac(waveform), waveform.rate, len(waveform.samples) / waveform.rate, scaled)
    except BadAudio as bad:
        return bad


def _cut_out(clip: Clip, raw: Waveform) -> Waveform:
    """The clip's part of its recording, from the sample nearest to its start to the one before that of its end."""
    if wrong := past_the_end(clip.start, clip.end, len(raw.samples) / raw.rate, clip.where or clip.id):
        hint = "; are the times milliseconds?" if "milliseconds" in wrong else ""
        raise BadAudio(f"segment past the end of its recording{hint}", wrong)
    first = round((clip.start or 0.0) * raw.rate)
    last = len(raw.samples) if clip.end is None else round(clip.end * raw.rate)
    return Waveform(raw.samples[first:last], raw.rate)
