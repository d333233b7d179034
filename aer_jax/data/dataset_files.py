"""Text files of a dataset directory, read strictly: every value is checked against its type."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aer_jax.data.preparation.splits import SPLITS
from aer_jax.errors import UserError
from aer_jax.files.content_hash import file_sha256, is_intact
from aer_jax.files.json_text import parse_json

ABOUT, UTTERANCES, VOTES, SPLIT = "dataset.json", "utterances.jsonl", "votes.jsonl", "splits.json"
FORMAT = 1
AGAIN = "run `aer-jax prepare` again"
# How each file is changed properly.
_PROPERLY = {
    SPLIT: "to divide the clips otherwise, run `aer-jax prepare` again with --split FILE",
    VOTES: "to change the votes, change them in the corpus and prepare it again",
}
_LONGEST = 1e6  # seconds; beyond it a length is a slip of the pen
_MOST_VOTES = 1e9

Rule = tuple[Callable[[Any], bool], str]
_NAME: Rule = (lambda value: isinstance(value, str) and value != "", "text that is not empty")
_TEXT: Rule = (lambda value: isinstance(value, str), "text")
_TEXT_OR_NONE: Rule = (lambda value: value is None or isinstance(value, str), "text or null")
_FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
_INDEX: Rule = (lambda value: type(value) is int and 0 <= value < 2**31, "a whole number from 0")
_SECONDS: Rule = (lambda value: _is_number(value) and 0 < value < _LONGEST, "a number above 0")
_WEIGHT: Rule = (lambda value: _is_number(value) and 0 <= value < _MOST_VOTES, "a number from 0")
_NAMES: Rule = (lambda value: isinstance(value, list) and all(_NAME[0](item) for item in value), "a list of texts")
_SPEAKERS: Rule = (
    lambda value: isinstance(value, dict) and all(map(_is_table, value.values())),
    "an object of objects of texts",
)
_TABLE: Rule = (lambda value: isinstance(value, dict), "an object")
_HASHES: Rule = (lambda value: _is_table(value) and {UTTERANCES, VOTES, SPLIT} <= value.keys(), "hashes of all files")

_UTTERANCE = {
    "id": _NAME, "speaker": _NAME, "transcript": _TEXT, "seconds": _SECONDS, "shard": _INDEX, "row": _INDEX,
}  # fmt: skip
_UTTERANCE_OPTIONAL = {"audio": _TEXT}
_VOTE = {"utterance": _NAME, "label": _TEXT}
_VOTE_OPTIONAL = {"rater": _TEXT_OR_NONE, "weight": _WEIGHT, "source": _NAME}
_ABOUT = {"corpus": _NAME, "classes": _NAMES, "licensed": _FLAG, "shards": _INDEX, "sha256": _HASHES}
_ABOUT_OPTIONAL = {"speakers": _SPEAKERS, "settings": _TABLE, "bytes": _TABLE, "digest": _NAME}


def read_about(path: Path) -> dict[str, Any]:
    """`dataset.json` of a directory.

    Raises:
        UserError: it is not there or cannot be read, is of another format version, is damaged, or was changed.
    """
    file = path / ABOUT
    if not file.is_file():
        raise UserError(f"{path} is not a dataset (it has no dataset.json); `aer-jax prepare` writes one.")
    about, _ = _read_object(file)
    version = about.get("format")
    if type(version) is not int or version != FORMAT:
        raise UserError(f"{path} has dataset format {_shown(version)}, this version reads {FORMAT}; {AGAIN}.")
    _check(about, _ABOUT, _ABOUT_OPTIONAL, str(file))
    if len(set(about["classes"])) < max(2, len(about["classes"])):
        raise UserError(f"{file} is damaged (its classes must be two at least, each named once); {AGAIN}.")
    if is_intact(about) is False:
        raise UserError(f"{file} is not what was written; copy the dataset again or {AGAIN} with other choices.")
    return about


class Texts(NamedTuple):
    """Contents of the text files, and their SHA-256 by name."""

    utterances: list[dict[str, Any]]
    votes: list[dict[str, Any]]
    splits: dict[str, Any]
    sha256: dict[str, str]


def read_texts(path: Path, shards: int) -> Texts:
    """The other text files.

    Raises:
        UserError: one cannot be read, or a line is damaged: not JSON, of other types, an id twice, a vote for nobody.
    """
    sha256: dict[str, str] = {}
    utterances, known = [], set()
    for where, line in _read_lines(path / UTTERANCES, sha256):
        _check(line, _UTTERANCE, _UTTERANCE_OPTIONAL, where)
        if line["id"] in known:
            raise UserError(f"{where} is damaged (the id {_shown(line['id'])} is used already); {AGAIN}.")
        if line["shard"] >= shards:
            raise UserError(f"{where} is damaged (there is no shard {line['shard']}, only {shards}); {AGAIN}.")
        known.add(line["id"])
        utterances.append(line)
    votes = []
    for where, line in _read_lines(path / VOTES, sha256):
        _check(line, _VOTE, _VOTE_OPTIONAL, where)
        if line["utterance"] not in known:
            raise UserError(f"{where} is damaged (there is no utterance {_shown(line['utterance'])}); {AGAIN}.")
        votes.append(line)
    splits, sha256[SPLIT] = _read_object(path / SPLIT)
    _check(splits, dict.fromkeys(SPLITS, _NAMES), {"speakers_apart": _FLAG}, str(path / SPLIT), others=True)
    return Texts(utterances, votes, splits, sha256)


def refuse_changed(path: Path, about: Mapping[str, Any], sha256: Mapping[str, str]) -> None:
    """Compare hashes of text files and sizes of shards with those in dataset.json.

    Raises:
        UserError: the first that differs, and how to change it properly.
    """
    for name, digest in sha256.items():
        if digest != about["sha256"][name]:
            _refuse(path, name)
    for name, size in about.get("bytes", {}).items():
        # Without its audio a dataset can still be counted and scored; a clip that is read is missed then.
        if (path / name).is_file() and (path / name).stat().st_size != size:
            _refuse(path, name)


def verify(path: Path, hashes: Mapping[str, str]) -> None:
    """Compare the hash of every file with the one in dataset.json.

    Raises:
        UserError: the first that differs or cannot be read.
    """
    for name, expected in hashes.items():
        try:
            same = file_sha256(path / name) == expected
        except OSError as error:
            raise UserError(f"cannot read {path / name} ({error.strerror}); {AGAIN}.") from None
        if not same:
            _refuse(path, name)


def _refuse(path: Path, name: str) -> None:
    how = _PROPERLY.get(name, "copy the dataset again")
    raise UserError(f"{path / name} is not what was written; {how}, or put the file back.")


def _check(
    value: Any, needed: Mapping[str, Rule], optional: Mapping[str, Rule], where: str, others: bool = False
) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{where} is damaged (it holds {_shown(value)}, not an object); {AGAIN}.")
    for name, (fits, what) in needed.items():
        if name not in value:
            raise UserError(f"{where} is damaged (it has no {name}); {AGAIN}.")
        if not fits(value[name]):
            raise UserError(f"{where} is damaged ({name} is {_shown(value[name])}, not {what}); {AGAIN}.")
    for name, (fits, what) in optional.items():
        if name in value and not fits(value[name]):
            raise UserError(f"{where} is damaged ({name} is {_shown(value[name])}, not {what}); {AGAIN}.")


def _read_object(path: Path) -> tuple[dict[str, Any], str]:
    try:
        content = path.read_bytes()
        value = parse_json(content)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {path} ({why}); {AGAIN}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object; {AGAIN}.")
    return value, hashlib.sha256(content).hexdigest()


def _read_lines(path: Path, sha256: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """(where it stands, value) of every line; the file's SHA-256 is put down under its name at the end."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                digest.update(line)
                where = f"{path}, line {number}"
                try:
                    value = parse_json(line)
                except ValueError as error:
                    raise UserError(f"{where} is not JSON ({error}); {AGAIN}.") from None
                yield where, value
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {AGAIN}.") from None
    sha256[path.name] = digest.hexdigest()


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value) if not isinstance(value, int) or abs(value) < 1e30 else "a huge number"
    return text if len(text) <= 60 else f"{text[:60]}..."
