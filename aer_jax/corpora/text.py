"""Text files of a corpus."""

from __future__ import annotations

from pathlib import Path

from aer_jax.errors import UserError


def read_text(path: Path) -> str:
    """A whole UTF-8 file, line ends as they are, a byte order mark taken off.

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
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line} is not UTF-8 text; save the file as UTF-8.") from None
