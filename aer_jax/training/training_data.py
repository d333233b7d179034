"""Record of the clips and speakers that a run learned from, so that none of them is scored as unseen.

A dataset may change after training: prepared again, split otherwise, replaced. What a run is evaluated on is compared
with `training_data.json` in its directory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_text
from aer_jax.files.content_hash import DIGEST, is_intact, seal
from aer_jax.files.json_text import parse_json
from aer_jax.training.input_hashes import dataset_hash
from aer_jax.training.run import Run, add_facts

FILE = "training_data.json"
_PARTS = ("train", "validation")


@dataclass(frozen=True)
class Relation:
    """How a dataset relates to what a run learned from.

    Attributes:
        same: the run learned from this very dataset.
        note: one sentence about a dataset that it did not, or that cannot be compared; "" for the same.
    """

    same: bool
    note: str


def save_training_data(run: Run, dataset: Dataset) -> None:
    """Write down what the run learns from: each clip of train and validation, its speaker and its audio."""
    parts = {part: {id: dataset.utterances[id].speaker for id in dataset.splits[part]} for part in _PARTS}
    audio = {id: dataset.utterances[id].audio for part in _PARTS for id in dataset.splits[part]}
    record = seal({"corpus": dataset.name, "speakers_apart": dataset.speakers_apart, "audio": audio, **parts})
    if run.environment.get("training_data") != record[DIGEST] or not (run.path / FILE).is_file():
        replace_text(run.path / FILE, json.dumps(record, ensure_ascii=False) + "\n")
        add_facts(run, training_data=record[DIGEST])


def compare(run: Run, dataset: Dataset, split: str) -> Relation:
    """Whether `split` of `dataset` may be scored by the run.

    The split that a run learned from is scored under its own name, train. In another dataset, or the same one changed,
    neither a clip nor a speaker of validation and test may be among those learned from.

    Raises:
        UserError: one is, or this cannot be told.
    """
    began_with = run.environment.get("learns_from", {}).get("data.dataset")
    if began_with == dataset_hash(dataset.path):
        return Relation(True, "")
    if began_with is None:
        return Relation(
            False, f"{run.path} was trained by an older version and does not say on what: whether it was on this "
            f"{split} split cannot be checked"
        )  # fmt: skip
    other = f"{dataset.path} is not, or no longer, the dataset that {run.path} was trained on"
    if (record := _read(run)) is not None:
        return Relation(False, _compare_with_record(run, dataset, split, record, other))
    if split == "train":
        return Relation(False, f"{other}; which of its clips were cannot be told")
    raise UserError(
        f"{other}, and the older version that trained it did not keep its speakers, so whether the {split} split "
        "was trained on cannot be checked; put that dataset back, or train again."
    )


def _compare_with_record(run: Run, dataset: Dataset, split: str, record: dict[str, Any], other: str) -> str:
    ids = dataset.splits[split]
    # With no epochs a readout is fitted to the validation split too; a test must not have chosen anything either.
    parts = _PARTS if split == "test" or run.config.train.epochs == 0 else ("train",)
    learned = {id: speaker for part in parts for id, speaker in record[part].items()}
    audio = {record.get("audio", {}).get(id, "") for id in learned} - {""}
    clips, speakers = _shared(dataset, ids, learned, audio, record["corpus"])
    if split == "train":
        return f"{other}; its training saw {len(clips)} of the {len(ids)} clips of this train split"
    fix = (
        "put that dataset back, prepare this one with them in its train split (`aer-jax prepare --split`), or score "
        "them as what they are with --split train"
    )
    if clips:
        raise UserError(
            f"{other}, and its training saw {len(clips)} of the {len(ids)} clips of this {split} split, {clips[0]} for "
            f"instance; {fix}."
        )
    if not speakers:
        return f"{other}; its training saw none of the clips and speakers of this {split} split"
    of_all = len({dataset.utterances[id].speaker for id in ids})
    count = f"{len(speakers)} of the {of_all} speakers of this {split} split"
    if dataset.name != record["corpus"]:
        return (
            f"{other}, nor of the same corpus ({dataset.name}, that one {record['corpus']}); {count} have names that "
            f"its training saw, {speakers[0]} for instance, and are taken for other people"
        )
    if not dataset.speakers_apart:
        return f"{other}; its training saw {count}, for this dataset shares speakers between its splits"
    raise UserError(
        f"{other}, and its training saw {count}, {speakers[0]} for instance; {fix}; if they are other people of the "
        "same name, name them otherwise in the corpus."
    )


def _shared(
    dataset: Dataset, ids: list[str], learned: dict[str, str], audio: set[str], corpus: str
) -> tuple[list[str], list[str]]:
    """Clips and names of speakers that were learned from.

    The same audio is the same clip, whatever it is called; clips of another corpus count by id and speaker together.
    """
    speaker_of = {id: dataset.utterances[id].speaker for id in ids}
    clips = [
        id
        for id in ids
        if dataset.utterances[id].audio in audio
        or (id in learned and (dataset.name == corpus or learned[id] == speaker_of[id]))
    ]
    return clips, sorted(set(speaker_of.values()) & set(learned.values()))


def _read(run: Run) -> dict[str, Any] | None:
    if "training_data" not in run.environment:
        return None
    path: Path = run.path / FILE
    try:
        record = parse_json(path.read_bytes())
    except (OSError, ValueError):
        record = None
    whole = isinstance(record, dict) and is_intact(record) and record[DIGEST] == run.environment["training_data"]
    if not whole:
        raise UserError(f"{path} is gone or is not what was written; copy the run again.")
    return record
