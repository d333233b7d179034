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


class Record(NamedTuple):
    """One utterance as stored: `flac` is 16-bit mono at `rate` Hz, the source's own rate."""

    id: str
    speaker: str
    transcript: str
    rate: int
    flac: bytes


def shard_name(shard: int, shards: int) -> str:
    return f"records-{shard:05d}-of-{shards:05d}.array_record"


class ShardWriter:
    """Writes one shard; it is whole when the context has been left without an error.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path):
        with _as_os_error():
            # One record a group and no second compression: a read touches the one clip it wants.
            self._writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        self._rows = 0

    def __enter__(self) -> ShardWriter:
        return self

    def add(self, record: Record) -> int:
        """Append one record; returns its row."""
        with _as_os_error():
            self._writer.write(msgpack.packb(record._asdict()))
        self._rows += 1
        return self._rows - 1

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        # After an error the file is thrown away; what closing says would only hide why.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext(), _as_os_error():
            self._writer.close()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """ArrayRecord raises RuntimeError for every failure, even a full disk."""
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
