"""Any corpus at all, described by one CSV or JSONL file with a line a clip.

Fields: `id`, `audio` (relative to the manifest), `speaker`; optional `transcript`, `split`; and either
`votes` or `distribution`:

    votes          JSONL: ["angry", "sad"], [{"rater": "r1", "label": "angry"}, ...] or {"angry": 2, "sad": 1}
                   CSV: angry;sad or angry:2;sad:1
    distribution   JSONL: {"angry": 0.7, "sad": 0.3}
                   CSV: angry:0.7;sad:0.3
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aer_jax.corpora.base import Clip, Corpus
from aer_jax.corpora.manifest_votes import read_distribution, read_votes, split_cell
from aer_jax.corpora.text import parse_json, read_text
from aer_jax.errors import UserError, nearest

REQUIRED, OPTIONAL, LABELS = ("id", "audio", "speaker"), ("transcript", "split"), ("votes", "distribution")
_SPLITS = ("train", "validation", "test")


def read(root: Path, lenient: bool = False) -> Corpus:
    """Read a manifest.

    Args:
        root: the file, or a folder that holds either manifest.csv or manifest.jsonl.
        lenient: drop and count lines that cannot be read.

    Returns:
        All clips in the file's order; labels and classes are those voted for, sorted. Fields that are not
        read are in `dropped`.

    Raises:
        UserError: the file is missing or a line of it is not as described; it names file and line.
    """
    path = _find(root)
    corpus = Corpus("manifest", (), (), [], lenient=lenient)
    line_of: dict[str, str] = {}
    unread: set[str] = set()
    read_fields = _read_csv if path.suffix.lower() == ".csv" else _read_jsonl
    for where, fields in read_fields(path, corpus):
        with corpus.reading(where):
            clip = _clip(fields, path.parent, where)
            if clip.id in line_of:
                raise UserError(f'{where}: the id "{clip.id}" stands in {line_of[clip.id]} already; ids are unique.')
            line_of[clip.id] = where.rpartition(", ")[2]
            unread |= fields.keys() - {*REQUIRED, *OPTIONAL, *LABELS}
            corpus.clips.append(clip)
    if not corpus.clips:
        raise UserError(f"{path} describes no clip; write one line a clip.")
    for field in sorted(unread):
        corpus.drop("manifest field that is not read", field)
    corpus.labels = corpus.classes = corpus.labels_voted_for()
    if not corpus.labels:
        raise UserError(f'no clip in {path} has a vote; fill "votes" or "distribution".')
    _refuse_case_twins(corpus.labels, path)
    return corpus


def _find(root: Path) -> Path:
    if root.is_file():
        if root.suffix.lower() not in (".csv", ".jsonl"):
            raise UserError(f"{root} is neither .csv nor .jsonl; a manifest is one of them.")
        return root
    found = [path for name in ("manifest.csv", "manifest.jsonl") if (path := root / name).is_file()]
    if len(found) != 1:
        what = "both manifest.csv and manifest.jsonl" if found else "neither manifest.csv nor manifest.jsonl"
        raise UserError(f"{root} holds {what}; give the manifest file itself with --root.")
    return found[0]


def _read_csv(path: Path, corpus: Corpus) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands, and its cells; empty cells are left out."""
    rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        _check_header(header, f"{path}, line 1")
        for row in rows:
            where, cells = f"{path}, line {rows.line_num}", None
            if row:
                with corpus.reading(where):
                    cells = _cells(header, row, where)
            if cells is not None:
                yield where, cells
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not CSV ({error}).") from None


def _cells(header: list[str], row: list[str], where: str) -> dict[str, Any]:
    if len(row) != len(header):
        raise UserError(f"{where} has {len(row)} cells, the header has {len(header)}; quote cells that hold commas.")
    cells: dict[str, Any] = {name: cell.strip() for name, cell in zip(header, row, strict=True) if cell.strip()}
    for name in LABELS:
        if name in cells:
            cells[name] = split_cell(cells[name], name, where)
    return cells


def _check_header(header: list[str], where: str) -> None:
    for name in REQUIRED:
        if name not in header:
            hint = nearest(name, set(header) - {*REQUIRED})
            raise UserError(f'{where}: the column "{name}" is missing.{hint} Columns are separated by commas.')
    if not set(LABELS) & set(header):
        raise UserError(f'{where}: a column "votes" or "distribution" is missing.')
    for name in header:
        if header.count(name) > 1:
            raise UserError(f'{where}: the column "{name}" stands there twice.')


def _read_jsonl(path: Path, corpus: Corpus) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line stands, and its object; nulls are left out."""
    for number, line in enumerate(io.StringIO(read_text(path)), 1):
        where, fields = f"{path}, line {number}", None
        if not line.strip():
            continue
        with corpus.reading(where):
            fields = parse_json(line, where)
            if not isinstance(fields, dict):
                raise UserError(f"{where} is not a JSON object; write one object a line.")
        if isinstance(fields, dict):
            yield where, {name: value for name, value in fields.items() if value is not None}


def _clip(fields: Mapping[str, Any], folder: Path, where: str) -> Clip:
    text = {name: _text(fields.get(name, ""), name, where) for name in (*REQUIRED, *OPTIONAL)}
    for name in REQUIRED:
        if not text[name]:
            raise UserError(f'{where}: "{name}" is missing.{nearest(name, fields.keys() - {*REQUIRED})}')
    split = text["split"] or None
    if split and split not in _SPLITS:
        raise UserError(f'{where}: split is "{split}".{nearest(split, _SPLITS)} Known: {", ".join(_SPLITS)}.')
    if all(name in fields for name in LABELS):
        raise UserError(f"{where} has votes and a distribution; give one of them.")
    if "distribution" in fields:
        votes = read_distribution(text["id"], fields["distribution"], where)
    else:
        votes = read_votes(text["id"], fields.get("votes", []), where)
    return Clip(text["id"], text["speaker"], folder / text["audio"], votes, text["transcript"], split)


def _text(value: Any, name: str, where: str) -> str:
    # Numbers are common as ids and speakers: 1001 and "1001" are the same.
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value).strip()
    raise UserError(f'{where}: "{name}" must be text, not {json.dumps(value)}.')


def _refuse_case_twins(labels: tuple[str, ...], path: Path) -> None:
    known: dict[str, str] = {}
    for label in labels:
        twin = known.setdefault(label.casefold(), label)
        if twin != label:
            raise UserError(f'{path}: the labels "{twin}" and "{label}" differ by case alone; spell them alike.')
