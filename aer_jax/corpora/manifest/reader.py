"""Manifest: a corpus described by one table with a line per clip, per segment or per vote.

docs/your-data.md documents the columns; in short: `id`, `audio` (relative to the manifest), `speaker`; optional
`transcript`, `split`, `start` and `end` in seconds; and votes in one of the forms

    votes          JSON: ["angry", "sad"], [{"rater": "r1", "label": "angry"}, ...] or {"angry": 2, "sad": 1}
                   text: angry;sad or angry:2;sad:1
    distribution   JSON: {"angry": 0.7, "sad": 0.3}
                   text: angry:0.7;sad:0.3
    counts, shares, raters     several columns, named by --map counts=Angry+Sad
    rater, label   one line per vote; the lines of a clip repeat its id
"""

from __future__ import annotations

from pathlib import Path

from aer_jax.corpora.base import Corpus
from aer_jax.corpora.label_names import LabelNames, read_synonyms
from aer_jax.corpora.manifest.rows import Rows, case_twins
from aer_jax.corpora.tables.columns import find_columns, parse_map
from aer_jax.corpora.tables.read import SUFFIXES, read_table
from aer_jax.errors import UserError


def read(root: Path, lenient: bool = False, map: str | None = None, labels: str | Path | None = None) -> Corpus:
    """Read a manifest.

    Args:
        root: the file, or a folder that holds one called manifest.csv, manifest.jsonl, ...
        lenient: drop and count lines that cannot be read.
        map: which columns are which fields, `audio=file_name,raters=R1+R2`; others are found by their names.
        labels: a table of synonyms, as `read_synonyms` reads it.

    Returns:
        All clips in the file's order, segments of a recording one after another; labels and classes are those voted
        for, sorted. Columns that are not read are in `dropped`.

    Raises:
        UserError: the file is missing or a line of it is not as described; it names file and line.
    """
    path = _find(Path(root))
    table = read_table(path)
    corpus = Corpus("manifest", (), (), [], lenient=lenient)
    if not table.columns:
        for where, row in table.rows:  # JSON, no line of which names a field
            with corpus.reading(where):
                raise row if isinstance(row, UserError) else UserError(f"{where} names no field.")
    columns = find_columns(table.columns, parse_map(map), table.header)
    rows = Rows(table, columns, LabelNames(read_synonyms(labels) if labels else None))
    for where, row in table.rows:
        with corpus.reading(where):
            if isinstance(row, UserError):
                raise row
            rows.add(row, where)
    corpus.clips = rows.clips()
    if not corpus.clips:
        raise UserError(f"{path} describes no clip; write one line per clip.")
    for column in sorted(rows.unread):
        corpus.drop("manifest field that is not read", column)
    corpus.choices |= {name: str(value) for name, value in (("map", map), ("labels", labels)) if value}
    corpus.notes += rows.notes()
    corpus.labels = corpus.classes = corpus.labels_voted_for()
    if not corpus.labels:
        raise UserError(f'no clip in {path} has a vote; fill "votes" or "distribution".')
    if twins := case_twins(corpus.labels):
        raise UserError(
            f'{path}: the labels "{twins[0]}" and "{twins[1]}" differ by case alone; spell them alike, or give '
            "--labels a table of synonyms, with which case does not matter."
        )
    return corpus


def _find(root: Path) -> Path:
    if not root.is_dir():
        return root
    tables = [path for suffix in SUFFIXES if (path := root / f"manifest{suffix}").is_file()]
    if len(tables) != 1:
        names = [path.name for path in tables]
        what = f"both {' and '.join(names)}" if tables else "neither manifest.csv nor manifest.jsonl nor another table"
        raise UserError(f"{root} holds {what}; give the manifest file itself with --root.")
    return tables[0]
