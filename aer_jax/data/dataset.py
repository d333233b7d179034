"""A prepared dataset directory, opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.audio import decode_flac, to_16k
from aer_jax.data.records import RecordReader, file_sha256, shard_name
from aer_jax.data.splits import SPLITS, assert_splits
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

FORMAT = 1


@dataclass(frozen=True)
class Utterance:
    """One clip of a dataset; `shard` and `row` are where its record lies."""

    id: str
    speaker: str
    transcript: str
    seconds: float
    shard: int
    row: int


@dataclass(frozen=True)
class Dataset:
    """Utterances, human votes and splits of a dataset directory; the audio stays on disk.

    It can be pickled and read from many threads.

    Attributes:
        path: the directory.
        name: of the corpus.
        classes: the classes that distributions are over, in order.
        licensed: True where audio and text must not be passed on.
        utterances: by id, in record order.
        votes: the human votes, also those outside `classes`.
        splits: "train", "validation" and "test" -> ids.
        speakers: speaker -> what the corpus says of them, for instance {"sex": "female"}; {} where it says nothing.
        speakers_apart: no speaker is in two splits; False for the paper's random split alone, whose scores say
            little about voices that were not heard in training.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    licensed: bool
    utterances: dict[str, Utterance] = field(repr=False)
    votes: list[Vote] = field(repr=False)
    splits: dict[str, list[str]] = field(repr=False)
    speakers: dict[str, dict[str, str]] = field(repr=False)
    speakers_apart: bool
    _records: RecordReader = field(repr=False, compare=False)

    def audio(self, id: str) -> np.ndarray:
        """The clip as float32 [samples], mono, 16 kHz.

        Raises:
            UserError: there is no such utterance, or the record store is damaged.
        """
        utterance = self.utterances.get(id)
        if utterance is None:
            raise UserError(f"the dataset {self.path} has no utterance {id}.")
        record = self._records.read(utterance.shard, utterance.row)
        if record.id != id:
            raise UserError(f"{self.path} holds {record.id} where {id} should be; run `aer-jax prepare` again.")
        return to_16k(decode_flac(record.flac))


def open_dataset(path: str | Path, verify: bool = False) -> Dataset:
    """Open a directory that `aer-jax prepare` wrote.

    Args:
        path: the directory.
        verify: read every file and compare it with the hash that was taken when it was written.

    Raises:
        UserError: it is none, is of another format version, is damaged, or its splits share a speaker although
            they were not made to.
    """
    path = Path(path)
    if not (path / "dataset.json").is_file():
        raise UserError(f"{path} is not a dataset (it has no dataset.json); `aer-jax prepare` writes one.")
    about = _read_json(path / "dataset.json")
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path} has dataset format {about.get('format')!r}, this version reads {FORMAT}; "
            "run `aer-jax prepare` again."
        )
    if verify:
        _verify(path, about.get("sha256"))
    try:
        utterances = {u["id"]: Utterance(**u) for u in _read_lines(path / "utterances.jsonl")}
        votes = [Vote(**vote) for vote in _read_lines(path / "votes.jsonl")]
        stored = _read_json(path / "splits.json")
        splits = {part: list(stored[part]) for part in SPLITS}
        dataset = Dataset(
            path=path,
            name=about["corpus"],
            classes=tuple(about["classes"]),
            licensed=bool(about["licensed"]),
            utterances=utterances,
            votes=votes,
            splits=splits,
            speakers=about.get("speakers", {}),
            speakers_apart=stored.get("speakers_apart", True) is not False,
            _records=RecordReader([path / shard_name(i, about["shards"]) for i in range(about["shards"])]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"the dataset {path} is damaged ({error!r}); run `aer-jax prepare` again.") from None
    speaker_of = {u.id: u.speaker for u in utterances.values()}
    assert_splits(splits, speaker_of, str(path / "splits.json"), dataset.speakers_apart)
    return dataset


def _verify(path: Path, hashes: Any) -> None:
    if not isinstance(hashes, dict) or not hashes:
        raise UserError(f"{path} holds no hashes to verify; run `aer-jax prepare` again.")
    for name, expected in hashes.items():
        try:
            same = file_sha256(path / name) == expected
        except OSError as error:
            raise UserError(f"cannot read {path / name} ({error.strerror}); run `aer-jax prepare` again.") from None
        if not same:
            raise UserError(f"{path / name} is not what was written; copy the dataset or run `aer-jax prepare` again.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); run `aer-jax prepare` again.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; run `aer-jax prepare` again.")
    return value


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise UserError(f"{path}, line {number} is not JSON; run `aer-jax prepare` again.") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); run `aer-jax prepare` again.") from None
