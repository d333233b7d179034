"""Import of the paper's synthetic annotations as a journal.

    {"Ses01F_impro01_F000":
        [{"annotator_id": "gemini_0", "emotion": "Anger", "response": "Anger", "temperature": 0.21}, ...], ...}

The paper's parser took the first label that occurs anywhere in a response ("not anger but sadness" was Anger). Here a
response that is not exactly one label is unparsed, as it is for annotations of our own.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from aer_jax.corpora import paper_json
from aer_jax.corpora.base import Corpus
from aer_jax.corpora.text import parse_json, read_text
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_text
from aer_jax.labels.journal import Attempt
from aer_jax.labels.parsing import parse

JOURNAL = "annotations.jsonl"
_FIELDS = ("annotator_id", "emotion", "response", "temperature")


def read_annotations(path: Path, corpus: Corpus) -> list[Attempt]:
    """The annotations as attempts, in the file's order.

    Args:
        path: the JSON object id -> list of annotations.
        corpus: read from paper-json; its choice about Excited and its leniency hold here too.

    Raises:
        UserError: the file or an annotation is not as described, names an unknown utterance, or an annotator
            answers twice.
    """
    if corpus.name != "paper-json":
        raise UserError(f"--annotations belong to paper-json, not to {corpus.name}; leave them out.")
    annotations = parse_json(read_text(path), str(path))
    if not isinstance(annotations, dict):
        raise UserError(f"{path} is not a JSON object of lists, one an utterance.")
    table = paper_json.label_table(corpus.choices["excited"])
    known = {clip.id for clip in corpus.clips}
    attempts: dict[tuple[str, int], Attempt] = {}
    for id, given in annotations.items():
        with corpus.reading(f"{path}, {id}"):
            if id not in known:
                raise UserError(f"{path}: {id} is none of the corpus' records.")
            if not isinstance(given, list):
                raise UserError(f"{path}, {id}: not a list of annotations.")
        for number, annotation in enumerate(given if isinstance(given, list) and id in known else [], 1):
            where = f"{path}, {id}, annotation {number}"
            with corpus.reading(where):
                attempt = _attempt(id, annotation, table, where)
                if attempt.key in attempts:
                    raise UserError(f"{where}: a second answer of annotator {attempt.listener}; keep one.")
                attempts[attempt.key] = attempt
    return list(attempts.values())


def write_journal(attempts: list[Attempt], dataset: Dataset) -> Path:
    """Write the attempts about the dataset's utterances next to it, for `labels.journal`.

    A label outside the dataset's classes becomes an unparsed answer, since it was not offered.

    Returns:
        the journal, `annotations.jsonl` in the dataset directory.
    """
    lines = []
    for attempt in attempts:
        if attempt.utterance in dataset.utterances:
            if attempt.label is not None and attempt.label not in dataset.classes:
                attempt = replace(attempt, label=None, outcome="unparsed")
            lines.append(attempt.line())
    path = dataset.path / JOURNAL
    replace_text(path, "".join(lines))
    return path


def _attempt(id: str, annotation: Any, table: dict[str, str], where: str) -> Attempt:
    if not isinstance(annotation, dict) or any(name not in annotation for name in _FIELDS):
        raise UserError(f"{where} is not an object with {', '.join(_FIELDS)}.")
    who, emotion, response, temperature = (annotation[name] for name in _FIELDS)
    name = re.fullmatch(r"(?P<model>[^\s\d].*?)?[_-]?(?P<listener>[0-9]{1,6})", str(who))
    if not isinstance(who, str | int) or isinstance(who, bool) or not name:
        raise UserError(f"{where}: annotator_id is {json.dumps(who)[:80]}, not a name and a number such as gemini_0.")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not math.isfinite(temperature):
        raise UserError(f"{where}: temperature is {json.dumps(temperature)[:80]}, not a number.")
    if not isinstance(response, str):
        raise UserError(f"{where}: response is not text.")
    label = paper_json.label(emotion, table, where)
    answered = parse(response, list(table))
    if answered is not None and table[answered] != label:
        raise UserError(f'{where}: the response "{response.strip()[:80]}" is not the emotion "{emotion}"; fix one.')
    return Attempt(
        utterance=id,
        listener=int(name["listener"]),
        persona="",
        temperature=float(temperature),
        seed=0,
        prompt="paper",
        model=name["model"] or "paper",
        response=response,
        label=None if answered is None else label,
        outcome="unparsed" if answered is None else None,
    )
