"""Text and JSON files of a corpus."""

from __future__ import annotations

import codecs
import re
import reprlib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aer_jax.errors import UserError
from aer_jax.files import json_text

# UTF-32's little-endian mark begins with UTF-16's, so it comes first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")  # zero-width spaces that copying leaves


class _Short(reprlib.Repr):
    """Dates and times, which workbooks and Parquet files hold, as text."""

    def _text(self, value: object, level: int) -> str:
        return str(value)

    repr_datetime = repr_date = repr_time = repr_timedelta = _text


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def read_bytes(path: Path) -> bytes:
    """A whole file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is a folder, pipe or device, not a file; name the file itself.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None


def read_text(path: Path, latin_1: bool = False) -> str:
    """A whole text file, line ends as they are, a byte order mark taken off.

    Args:
        path: the file, UTF-8, or UTF-16 or UTF-32 with a byte order mark.
        latin_1: read a file that is not UTF-8 as Latin-1, in which every byte is a character.

    Raises:
        UserError: it cannot be read, or a line of it is not text.
    """
    return decode_text(read_bytes(path), path, latin_1)


def decode_text(data: bytes, path: Path, latin_1: bool = False) -> str:
    """`read_text` of a file's bytes; `path` is how messages name it."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if latin_1:
            return data.decode("latin-1")
        line = error.object[: error.start].count(b"\n") + 1
        known = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
        raise UserError(
            f'{path}, line {line} is not {known} text; save the file as UTF-8 (Excel: "CSV UTF-8").'
        ) from None
    if "\0" in text and not latin_1:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f'{path}, line {line} holds a NUL byte; save the file as UTF-8 text (Excel: "CSV UTF-8").')
    return text


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where each line stands, and the line without its end; LF, CRLF or CR, UTF-8 or Latin-1."""
    for number, line in enumerate(split_lines(read_text(path, latin_1=True)), 1):
        yield f"{path}, line {number}", line


def split_lines(text: str) -> list[str]:
    """The lines of a text, without their ends: LF, CRLF or CR.

    `str.splitlines` would also cut at NEL, U+2028 and their like, which transcripts hold.
    """
    return re.split(r"\r\n|\n|\r", text)


def parse_json(text: str, where: str) -> Any:
    """A JSON value in which no object names a key twice, since that would lose votes; NaN and infinities are floats.

    Raises:
        UserError: it is none.
    """
    try:
        return json_text.parse_json(text, nan=True, unique=True)
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}).") from None


def tidy(text: str) -> str:
    """A name as it is compared: composed Unicode, without invisible characters, each gap one space."""
    return re.sub(r"[ \u00a0]+", " ", unicodedata.normalize("NFC", _INVISIBLE.sub("", text))).strip()


def brief(text: str) -> str:
    """A name as messages show it: on one line, its middle left out where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"


def shown(value: Any) -> str:
    """A value as messages show it: in Python's spelling, cut where it is long or deep."""
    return _SHORT.repr(value)
