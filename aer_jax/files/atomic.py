"""Atomic writes: a file or a directory is there whole or not at all, also where the process is killed on the way."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from aer_jax.errors import UserError
from aer_jax.files.json_text import parse_json


def replace_text(path: Path, text: str) -> None:
    """Put `text` in the place of a file's content, in one move."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file's content, in one move.

    Where the system has files without a name (Linux), it is written to one, so that a process that is killed leaves
    nothing; elsewhere to a hidden file next to it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _unnamed(path.parent) or partial.open("wb") as file:
            file.write(content)
            file.flush()
            if file.name != str(partial):
                # A folder, even one that is not looked at, makes Python follow the link.
                os.link(f"/proc/self/fd/{file.fileno()}", partial, src_dir_fd=file.fileno(), follow_symlinks=True)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def whole_directory(out: Path) -> Iterator[Path]:
    """A directory to write into that takes the name `out` at the end, or vanishes where something goes wrong.

    What a killed writer left behind is removed first; one writer at a time is the caller's to see to.
    """
    partial = out.parent / f".{out.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _unnamed(folder: Path) -> IO[bytes] | None:
    try:
        return open(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb")
    except (AttributeError, OSError):  # another system, or a file system that has none
        return None


def csv_line(cells: Sequence[str | float]) -> str:
    """One line of a CSV file, without its end, that reads back as it was and that no spreadsheet computes.

    Text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, CSV injection); numbers do not.
    """
    line = io.StringIO()
    csv.writer(line).writerow([f"'{cell}" if _is_formula(cell) else cell for cell in cells])
    return line.getvalue().removesuffix("\r\n")


def _is_formula(cell: str | float) -> bool:
    return (
        isinstance(cell, str)
        and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
        and not _NUMBER.fullmatch(cell)
    )


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def user_cache() -> Path:
    """Where what can be made again is kept for all runs of a user."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aer_jax"


def refuse_remote(path: str | Path, what: str) -> None:
    """Refuse gs:// and its like, which a Path would take for a folder of that name here, lost with the machine.

    Raises:
        UserError: `path` names a bucket or a server.
    """
    if scheme := re.match("([a-z0-9]{2,}):/", str(path)):
        raise UserError(
            f"{what} is {path}, but only mounted folders are read and written; mount it, {scheme[1]}:// for instance "
            "with gcsfuse or an NFS share, and name the folder."
        )


def plain(value: Any) -> Any:
    """Only what JSON knows: NaN and infinity become None, tuples lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(file: Path, advice: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        file: UTF-8.
        advice: what to do about a damaged one, which ends the sentence.

    Raises:
        UserError: it cannot be read, is not JSON, is nested too deeply, or is no object.
    """
    try:
        content = parse_json(file.read_bytes(), nan=True)
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); {advice}.") from None
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON ({error}); {advice}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object; {advice}.")
    return content
