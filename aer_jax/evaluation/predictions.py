"""Predictions of a split: checked before they are scored, and written and read as predictions.jsonl."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aer_jax.errors import UserError
from aer_jax.evaluation.ambiguity import ambiguity
from aer_jax.files.atomic import replace_bytes
from aer_jax.files.json_text import parse_json
from aer_jax.labels.votes import normalise

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset


def checked(probs: Mapping[str, Sequence[float]], dataset: Dataset, split: str) -> tuple[list[str], np.ndarray]:
    """The ids of the split, sorted, and their predictions, float64 [N, K], which sum to one.

    Raises:
        UserError: an id is missing or foreign, or the numbers are negative, not finite, too many or too few, or do not
            sum to one within 1e-3.
    """
    if split not in dataset.splits:
        raise UserError(f'{dataset.path} has no split "{split}"; it has {", ".join(dataset.splits)}.')
    ids = sorted(dataset.splits[split])
    if not ids:
        raise UserError(f"the {split} split of {dataset.path} is empty; there is nothing to evaluate.")
    for id in probs.keys() - set(ids):
        raise UserError(f'the prediction for "{id}" is not of the {split} split of {dataset.path}; predict that split.')
    if missing := [id for id in ids if id not in probs]:
        raise UserError(
            f"{len(missing)} of the {len(ids)} utterances of the {split} split of {dataset.path} have no "
            f'prediction, the first is "{missing[0]}"; predict the whole split.'
        )
    for id in ids:
        what, probs_k = f'the prediction for "{id}"', np.asarray(probs[id], np.float64)
        if probs_k.shape != (len(dataset.classes),):
            raise UserError(f"{what} has {probs_k.size} numbers; {dataset.path} has {len(dataset.classes)} classes.")
        if not np.isfinite(probs_k).all() or (probs_k < 0).any() or abs(probs_k.sum() - 1) > 1e-3:
            raise UserError(f"{what} is not a distribution: {probs_k.tolist()}; its numbers must be >= 0 and sum to 1.")
    return ids, normalise(np.array([probs[id] for id in ids], np.float64))


def human_distributions(dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
    """The human votes of `ids` as distributions [N, K], not smoothed.

    Raises:
        UserError: an utterance has no human vote for any of the dataset's classes.
    """
    references_nk = normalise(dataset.votes.human.counts(ids, dataset.classes))
    without = [id for id, row in zip(ids, references_nk, strict=True) if np.isnan(row).any()]
    if without:
        raise UserError(
            f"{len(without)} utterances of {dataset.path} have no human vote for its classes, the first is "
            f'"{without[0]}"; prepare the dataset again, `aer-jax prepare` drops them.'
        )
    return references_nk


def write_predictions(
    path: Path,
    ids: Sequence[str],
    speakers: Sequence[str],
    classes: Sequence[str],
    probs_nk: np.ndarray,
    references_nk: np.ndarray | None = None,
) -> str:
    """Write JSON lines of id, speaker, probs, and reference and ambiguity where given; returns their SHA-256."""

    def named(p_k: np.ndarray) -> dict[str, float]:
        return dict(zip(classes, p_k.tolist(), strict=True))

    lines: list[dict[str, Any]] = [
        {"id": id, "speaker": str(speaker), "probs": named(probs_k)}
        for id, speaker, probs_k in zip(ids, speakers, probs_nk, strict=True)
    ]
    if references_nk is not None:
        for line, reference_k, h in zip(lines, references_nk, ambiguity(references_nk), strict=True):
            line |= {"reference": named(reference_k), "ambiguity": float(h)}
    content = "".join(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n" for line in lines).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_predictions(path: Path, fix: str) -> list[dict[str, Any]]:
    """The lines of a predictions.jsonl, each with an id and probs; reference and ambiguity are checked where present.

    Args:
        fix: what to do where it is damaged, as messages say it.

    Raises:
        UserError: it cannot be read, or a line is not a prediction or is of an utterance that another is of.
    """
    lines: dict[str, dict[str, Any]] = {}
    try:
        texts = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {fix}.") from None
    for number, text in enumerate(texts, 1):
        try:
            line = parse_json(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise UserError(f"{path}, line {number}, is not a JSON object; {fix}.")
        if not isinstance(line.get("id"), str) or not _is_shares(line.get("probs")):
            raise UserError(f"{path}, line {number}, is not a prediction (an id, and a share for each class); {fix}.")
        if not _is_shares(line.get("reference", {"": 1})) or not _is_number(line.get("ambiguity", 0)):
            raise UserError(f"{path}, line {number}, has no shares of listeners; {fix}.")
        if line["id"] in lines:
            raise UserError(f"{path} holds {line['id']} twice; {fix}.")
        lines[line["id"]] = line
    return list(lines.values())


def shares(lines: Sequence[Mapping[str, Any]], key: str, classes: Sequence[str]) -> np.ndarray:
    """`probs` or `reference` of the lines of a predictions.jsonl as an array [N, K].

    Raises:
        KeyError: a line lacks a class.
    """
    return np.array([[line[key][name] for name in classes] for line in lines], np.float64)


def _is_shares(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(p) and p >= 0 for p in value.values()) and any(value.values())


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
