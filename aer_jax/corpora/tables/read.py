"""Tables as spreadsheets, pandas and scripts write them: rows of named fields, whatever the file's format.

CSV and its like (the delimiter is told from the header line), JSON lines, JSON arrays, Excel workbooks, Parquet.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from aer_jax.corpora.tables.columns import NAMES, normalise
from aer_jax.corpora.text import brief, decode_text, parse_json, read_bytes, split_lines
from aer_jax.errors import UserError

TEXT, JSON = (".csv", ".tsv", ".tab", ".txt"), (".json", ".jsonl", ".ndjson")
SUFFIXES = (*TEXT, *JSON, ".xlsx", ".xlsm", ".parquet")
# Where a row stands, and its fields; the error instead where the row cannot be read, so that readers may skip it.
Row: TypeAlias = tuple[str, dict[str, Any] | UserError]
_DELIMITERS = ",;|"
_KNOWN = {*NAMES, *(name for names in NAMES.values() for name in names)}


@dataclass(frozen=True)
class Table:
    """A table, read.

    Attributes:
        path: the file.
        columns: the names of its columns; of JSON, all keys in order of appearance.
        rows: values as their format has them, text stripped; empty cells, null and NaN are left out.
        header: where the names stand, for messages.
        decimal_comma: whether "0,7" is how a number may be written: in text that commas do not delimit.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]
    header: str
    decimal_comma: bool = False


def read_table(path: str | Path) -> Table:
    """Read a table; its content, not its suffix alone, says which format it has.

    Raises:
        UserError: it is none, is damaged, or names a column twice.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES and path.is_file():
        advice = "save it as .xlsx or .csv" if suffix in (".xls", ".ods", ".numbers") else "rename or convert it"
        raise UserError(f"{path} is none of {', '.join(SUFFIXES)}; a table is one of them: {advice}.")
    data = read_bytes(path)
    if data.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the table; fetch it with `git lfs pull`.")
    if data.startswith((b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0")) or suffix in (".xlsx", ".xlsm", ".parquet"):
        from aer_jax.corpora.tables import binary as binary_tables

        if data.startswith(b"PAR1") or suffix == ".parquet":
            header, rows = binary_tables.read_parquet(data, path)
        else:
            header, rows = binary_tables.read_workbook(data, path)
        return _with_header(path, header, rows, f"{path}, header")
    text = decode_text(data, path)
    if suffix in JSON or text.lstrip()[:1] in ("{", "["):
        parsed = list(_json_rows(text, path))
        names = dict.fromkeys(name for _, row in parsed if isinstance(row, dict) for name in row)
        return Table(path, tuple(names), parsed, str(path))
    return _delimited(text, path)


def _delimited(text: str, path: Path) -> Table:
    named = re.match(r"sep=(.)(?:\r\n|\n|\r)", text)  # Excel's own way to say it
    line = next((line for line in split_lines(text)[bool(named) :] if line.strip()), "")
    delimiter = named[1] if named else delimiter_of(line)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def numbered() -> Iterator[tuple[str, list[str]]]:
        try:
            for row in reader:
                if row and not (named and reader.line_num == 1):
                    yield f"{path}, line {reader.line_num}", row
        except csv.Error as error:
            raise UserError(
                f"{path}, line {reader.line_num} is not CSV ({error}); a quote inside a cell is written twice."
            ) from None

    rows = numbered()
    where, header = next(rows, (f"{path}, line 1", []))
    return _with_header(path, header, rows, where, delimiter)


def delimiter_of(header: str) -> str:
    """What separates the names of a header line: tabs where there are any, else what makes most known or most names."""

    def names(delimiter: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=delimiter), [])
        return sum(normalise(cell) in _KNOWN for cell in cells), len(cells)

    header = header.strip()[:10_000]
    return "\t" if "\t" in re.sub(r'"[^"]*"?', "", header) else max(_DELIMITERS, key=names)


def _with_header(
    path: Path, header: Sequence[Any], rows: Iterable[tuple[str, Sequence[Any]]], where: str, delimiter: str = ","
) -> Table:
    named = ["" if name is None else str(name).strip() for name in header]
    while named and not named[-1]:
        named.pop()
    for name in named:
        if name and named.count(name) > 1:
            raise UserError(f'{where}: the column "{brief(name)}" stands there twice.')
    names = [name or f"(column {i}, without a name)" for i, name in enumerate(named, 1)]
    parsed: list[Row] = [(place, _fields(names, cells, place, delimiter)) for place, cells in rows]
    parsed = [(place, row) for place, row in parsed if row != {}]  # Excel writes lines of delimiters behind a table
    used = {name for _, row in parsed if isinstance(row, dict) for name in row}
    columns = [name for name, title in zip(names, named, strict=True) if title or name in used]
    return Table(path, tuple(columns), parsed, where, delimiter != ",")


def _fields(names: Sequence[str], cells: Sequence[Any], where: str, delimiter: str) -> dict[str, Any] | UserError:
    if any(isinstance(cell, str) and _swallows_rows(cell, len(names), delimiter) for cell in cells):
        return UserError(f"{where}: a quoted cell holds what look like rows; a quote inside a cell is written twice.")
    present = [_present(cell) for cell in cells]
    while len(present) > len(names) and present[-1] is None:
        present.pop()
    if not any(cell is not None for cell in present):
        return {}
    if len(present) != len(names):
        mark = {",": "commas", ";": "semicolons", "\t": "tabs"}.get(delimiter, f'"{delimiter}"')
        return UserError(f"{where} has {len(cells)} cells, the header has {len(names)}; quote cells that hold {mark}.")
    return {name: cell for name, cell in zip(names, present, strict=True) if cell is not None}


def _swallows_rows(cell: str, columns: int, delimiter: str) -> bool:
    count = cell.count(delimiter)
    return "\n" in cell and columns > (1 if delimiter == "\t" else 3) and count > 0 and count % (columns - 1) == 0


def _present(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip().strip("\u200b\u2060\ufeff").strip() or None
    return None if isinstance(value, float) and value != value else value


def _json_rows(text: str, path: Path) -> Iterator[Row]:
    if text.lstrip().startswith("["):
        array = parse_json(text, str(path))
        for number, item in enumerate(array, 1):
            yield _object(item, f"{path}, item {number}")
        return
    _refuse_one_object(text, path)
    for number, line in enumerate(split_lines(text), 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield _object(parse_json(line, where), where)
            except UserError as error:
                yield where, error


def _refuse_one_object(text: str, path: Path) -> None:
    """An object over several lines, or one of columns, is not JSON lines."""
    try:
        value = parse_json(text, str(path))
    except UserError:
        return  # several lines, each for itself
    columns = isinstance(value, dict) and value and all(isinstance(item, dict | list) for item in value.values())
    if isinstance(value, dict) and (columns or len(split_lines(text.strip())) > 1):
        raise UserError(
            f"{path} is one JSON object; write one object per line, or an array of objects (pandas: orient='records')."
        )


def _object(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        return where, UserError(f"{where} is not a JSON object; write one object per line, or an array of objects.")
    return where, {name.strip(): item for name, field in value.items() if (item := _present(field)) is not None}
