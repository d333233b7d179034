"""Text and JSON files of a corpus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aer_jax.errors import UserError


def read_text(path: Path, latin_1: bool = False) -> str:
    """A whole UTF-8 file, line ends as they are, a byte order mark taken off.

    Args:
        path: the file.
        latin_1: read a file that is not UTF-8 as Latin-1, in which every byte is a character.

    Raises:
        UserError: it cannot be read, or a line of it is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if latin_1:
            return data.decode("latin-1")
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line} is not UTF-8 text; save the file as UTF-8.") from None


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where each line stands, and the line without its end; LF, CRLF or CR, UTF-8 or Latin-1.

    `str.splitlines` would also cut at characters such as NEL, which Latin-1 text may hold.
    """
    for number, line in enumerate(re.split(r"\r\n|\n|\r", read_text(path, latin_1=True)), 1):
        yield f"{path}, line {number}", line


def parse_json(text: str, where: str) -> Any:
    """A JSON value in which no object names a key twice and all text can be written again as UTF-8.

    Raises:
        UserError: it is none.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # an escaped half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON ({error}).") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a key stand twice and keeps the last; here that would lose votes."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" stands twice in one object')
    return fields
