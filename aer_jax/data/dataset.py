"""A prepared dataset directory, opened."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from aer_jax.data import dataset_files
from aer_jax.data.audio.read import decode_flac, to_16k
from aer_jax.data.preparation.splits import SPLITS, assert_splits
from aer_jax.data.records import RecordReader, shard_name
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote, Votes


@dataclass(frozen=True)
class Utterance:
    """One clip of a dataset; `shard` and `row` are where its record lies, `audio` is the digest of its FLAC.

    Datasets of older versions have no such digest.
    """

    id: str
    speaker: str
    transcript: str
    seconds: float
    shard: int
    row: int
    audio: str = ""


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
        speakers_apart: no speaker is in two splits; False for the paper's random split, and for a file that divides a
            speaker: their scores say little about voices that were not heard in training.
    """

    path: Path
    name: str
    classes: tuple[str, ...]
    licensed: bool
    utterances: dict[str, Utterance] = field(repr=False)
    votes: Votes = field(repr=False)
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


_UTTERANCE = tuple(field.name for field in fields(Utterance))
_VOTE = tuple(field.name for field in fields(Vote))


def open_dataset(path: str | Path, verify: bool = False) -> Dataset:
    """Open a directory that `aer-jax prepare` wrote; its text files are compared with the hashes taken then.

    Args:
        path: the directory.
        verify: compare the audio too, which reads all of it. Without it each record is checked when it is read, by the
            checksums of its file.

    Raises:
        UserError: it is none, is of another format version, is damaged or was changed, or its splits share a speaker
            although they were not made to.
    """
    path = Path(path)
    about = dataset_files.read_about(path)
    if verify:
        dataset_files.verify(path, about["sha256"])
    shards = about["shards"]
    texts = dataset_files.read_texts(path, shards)
    dataset = Dataset(
        path=path,
        name=about["corpus"],
        classes=tuple(about["classes"]),
        licensed=about["licensed"],
        utterances={
            line["id"]: Utterance(**{name: line[name] for name in _UTTERANCE if name in line})
            for line in texts.utterances
        },
        votes=Votes(Vote(**{name: line[name] for name in _VOTE if name in line}) for line in texts.votes),
        splits={part: texts.splits[part] for part in SPLITS},
        speakers=about.get("speakers", {}),
        speakers_apart=texts.splits.get("speakers_apart", True),
        _records=RecordReader([path / shard_name(i, shards) for i in range(shards)]),
    )
    speaker_of = {u.id: u.speaker for u in dataset.utterances.values()}
    assert_splits(dataset.splits, speaker_of, str(path / "splits.json"), dataset.speakers_apart)
    # Last: what is wrong in a file says more than that it was changed.
    dataset_files.refuse_changed(path, about, texts.sha256)
    return dataset
