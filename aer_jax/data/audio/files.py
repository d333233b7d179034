"""Opening audio files; a pipe is refused, since reading it could hang."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aer_jax.data.audio.bad_audio import MISSING, BadAudio, unreadable

_KINDS = {
    stat.S_IFIFO: "a pipe; give its content on standard input",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def open_audio(path: str | Path, where: str) -> Iterator[BinaryIO]:
    """A file, unbuffered: libsndfile moves its position too.

    Args:
        path: of the file.
        where: how messages name it.

    Raises:
        BadAudio: it is missing, no file, or may not be read.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadAudio(MISSING, f"{where} is a folder; name the files in it.")
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
            raise BadAudio("audio is no regular file", f"{where} is {kind}.")
        # By number: the libraries would look at the ending of a name, which may be wrong.
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        link = f" (a link to {os.readlink(path)}, which is not there)" if _is_link(path) else ""
        raise BadAudio(MISSING, f"there is no {where.removeprefix('the ')}{link}; check the path.") from None
    except OSError as error:
        raise unreadable(where, error.strerror or error, "check the path and its permissions") from None
    with file:
        yield file


@contextmanager
def open_bytes(content: bytes) -> Iterator[BinaryIO]:
    """Bytes as a file: libsndfile complains on the screen where reading from memory fails."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(content)
        file.seek(0)
        yield file


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False
