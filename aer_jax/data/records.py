"""The record store: utterances with their audio in ArrayRecord shards, read at random."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgpack
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from aer_jax.errors import UserError

SHARD_BYTES = 256 * 2**20


class Record(NamedTuple):
    """One utterance as stored: `flac` is 16-bit mono at `rate` Hz, the source's own rate."""

    id: str
    speaker: str
    transcript: str
    rate: int
    flac: bytes


def shard_name(shard: int, shards: int) -> str:
    return f"records-{shard:05d}-of-{shards:05d}.array_record"


class RecordWriter:
    """Writes records to shards of about `shard_bytes`; leaving the context names them `-of-N`.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES):
        self._folder, self._shard_bytes = folder, shard_bytes
        self._writer: ArrayRecordWriter | None = None
        self._shards = self._rows = self._bytes = 0

    def __enter__(self) -> RecordWriter:
        return self

    def add(self, record: Record) -> tuple[int, int]:
        """Append one record; returns its shard and its row there."""
        if self._writer is not None and self._bytes >= self._shard_bytes:
            self._close_shard()
        with _as_os_error():
            if self._writer is None:
                # One record a group and no second compression: a read touches the one clip it wants.
                path = self._part(self._shards)
                self._writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
                self._shards, self._rows, self._bytes = self._shards + 1, 0, 0
            packed = msgpack.packb(record._asdict())
            self._writer.write(packed)
        self._rows += 1
        self._bytes += len(packed)
        return self._shards - 1, self._rows - 1

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        if kind is not None:
            # The caller throws the folder away; what closing says would only hide why.
            with contextlib.suppress(OSError):
                self._close_shard()
            return
        self._close_shard()
        for shard in range(self._shards):
            self._part(shard).rename(self._folder / shard_name(shard, self._shards))

    @property
    def shards(self) -> int:
        return self._shards

    def _part(self, shard: int) -> Path:
        return self._folder / f"records-{shard:05d}.part"

    def _close_shard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with _as_os_error():
                writer.close()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """ArrayRecord says everything as RuntimeError, a full disk too."""
    try:
        yield
    except RuntimeError as error:
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, " ".join(str(error).split())) from None


class RecordReader:
    """Random access to the records of a dataset directory.

    Any thread may read (each opens the files for itself); a pickled reader opens them again where it lands.
    """

    def __init__(self, paths: Sequence[Path]):
        self._paths = tuple(paths)
        self._local = threading.local()

    def __reduce__(self) -> tuple[type, tuple[tuple[Path, ...]]]:
        return RecordReader, (self._paths,)

    def read(self, shard: int, row: int) -> Record:
        """Record `row` of shard `shard`.

        Raises:
            UserError: the shard is missing or damaged.
        """
        path = self._paths[shard]
        try:
            return Record(**msgpack.unpackb(self._open(shard).read([row])[0]))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"record {row} of {path} cannot be read ({why}); run `aer-jax prepare` again.") from None

    def _open(self, shard: int) -> ArrayRecordReader:
        readers = self._local.__dict__.setdefault("readers", {})
        if shard not in readers:
            # Without read-ahead and its threads: the next clip is somewhere else.
            options = "readahead_buffer_size:0,max_parallelism:0"
            reader = ArrayRecordReader(str(self._paths[shard]), options, file_reader_buffer_size=2**16)
            if not reader.ok():
                reader.close()  # raises what went wrong
            readers[shard] = reader
        return readers[shard]
