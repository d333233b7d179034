"""Excel workbooks and Parquet files as rows of cells."""

from __future__ import annotations

import datetime
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aer_jax.errors import UserError

Cells = tuple[Sequence[Any], Iterator[tuple[str, Sequence[Any]]]]


def read_workbook(data: bytes, path: Path) -> Cells:
    """Header and rows of the only sheet with content; formulas are read as the values that Excel kept.

    Raises:
        UserError: openpyxl is missing, it is no workbook, several sheets have content, or a formula was never computed.
    """
    try:
        import openpyxl
    except ImportError:
        raise _needs("openpyxl", path, "an Excel workbook") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of extensions that hold no cells
            book = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
            formulas = openpyxl.load_workbook(io.BytesIO(data))
    except Exception as error:  # whatever a damaged or hostile archive makes of zipfile, XML and openpyxl
        why = "it has a password or is of Excel 2003" if data.startswith(b"\xd0\xcf\x11\xe0") else _sentence(error)
        raise UserError(
            f"{path} is not an Excel workbook that can be read ({why}); save it as .xlsx or .csv."
        ) from None
    filled = [sheet for sheet in book.worksheets if any(any(v is not None for v in row) for row in sheet.values)]
    if len(filled) > 1:
        names = ", ".join(sheet.title for sheet in filled)
        raise UserError(f"{path} has several sheets with content ({names}); save the one to read as a file of its own.")
    rows: list[tuple[str, Sequence[Any]]] = []
    for sheet in filled or book.worksheets[:1]:
        for number, (row, sources) in enumerate(zip(sheet.values, formulas[sheet.title].values, strict=True), 1):
            where = f"{path}, row {number}"
            _check_formulas(row, sources, where)
            if any(value is not None for value in row):
                rows.append((where, [_cell(value) for value in row]))
    return (rows[0][1] if rows else []), iter(rows[1:])


def _check_formulas(values: Sequence[Any], sources: Sequence[Any], where: str) -> None:
    for value, source in zip(values, sources, strict=True):
        if value is None and source is not None:
            raise UserError(
                f"{where} holds the formula {source} without its value; open the file in Excel and save it."
            )


def _cell(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, datetime.time):  # a length of time under a day, in Excel's own format
        return datetime.timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
        )
    return value


def read_parquet(data: bytes, path: Path) -> Cells:
    """Header and rows of a Parquet file.

    Raises:
        UserError: pyarrow is missing, or the file is damaged.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise _needs("pyarrow", path, "a Parquet file") from None
    try:
        table = parquet.ParquetFile(io.BytesIO(data)).read()
        rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    except Exception as error:  # whatever a damaged file makes of pyarrow
        raise UserError(
            f"{path} is not a Parquet file that can be read ({_sentence(error)}); write it again."
        ) from None
    return table.column_names, ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _needs(package: str, path: Path, what: str) -> UserError:
    return UserError(f"{path} is {what}, which needs {package}: `pip install 'aer-jax[tables]'`, or save it as CSV.")


def _sentence(error: Exception) -> str:
    if type(error).__name__ in ("BadZipFile", "ArrowInvalid"):
        return "it was cut, or its content is another than its name says"
    return " ".join(f"{type(error).__name__}: {error}".split())[:120].rstrip(".")
