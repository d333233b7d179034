"""Folders of a corpus: entries and audio files by name, in any case and at any depth."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from aer_jax.corpora.base import Corpus
from aer_jax.errors import UserError

AUDIO_ENDINGS = (".wav", ".flac", ".m4a", ".opus", ".ogg", ".mp3")


def entries(folder: Path) -> dict[str, Path]:
    """Name in lower case -> path, for all that lies in a folder.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        return {path.name.casefold(): path for path in sorted(folder.iterdir())}
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}.") from None


def find(folder: Path, *names: str) -> Path | None:
    """The entry of `folder` with the first of `names` that is there, whatever its case."""
    present = entries(folder)
    return next((present[name.casefold()] for name in names if name.casefold() in present), None)


def below(folder: Path, *names: str) -> Path:
    """A path below a folder, each step whatever its case; as it is spelled here where it is not there."""
    for name in names:
        folder = (find(folder, name) if folder.is_dir() else None) or folder / name
    return folder


def find_files(folder: Path, corpus: Corpus, endings: Sequence[str] = AUDIO_ENDINGS) -> dict[str, Path]:
    """Files at any depth below a folder: name without its ending, lower case -> path, sorted by name.

    Hidden files are skipped; further files of a name are counted in `corpus.dropped`.

    Args:
        folder: where to look.
        corpus: whose files they are.
        endings: lower case; of two files of one name the one whose ending comes first is taken.

    Raises:
        UserError: a folder cannot be read.
    """
    by_stem: dict[str, list[Path]] = {}
    for path in _files(folder):
        if path.suffix.casefold() in endings and not path.name.startswith("."):
            by_stem.setdefault(path.stem.casefold(), []).append(path)
    files = {}
    for name, paths in sorted(by_stem.items()):
        files[name], *others = sorted(paths, key=lambda path: (endings.index(path.suffix.casefold()), path))
        for other in others:
            corpus.drop("second file of one name, not read", str(other))
    return files


def same_but_for_case(path: Path) -> Path:
    """`path`, or the one file in its folder whose name differs by case alone (`.WAV`)."""
    try:
        if path.exists() or not path.parent.is_dir():
            return path
        twins = _by_name(path.parent, path.parent.stat().st_mtime_ns).get(path.name.casefold(), [])
    except OSError:  # a name too long, a folder that may not be read: whoever opens the file says so
        return path
    return twins[0] if len(twins) == 1 else path


@functools.lru_cache(maxsize=16)
def _by_name(folder: Path, changed: int) -> dict[str, list[Path]]:
    names: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        names.setdefault(path.name.casefold(), []).append(path)
    return names


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}.") from None

    seen: set[str] = set()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.realpath(here) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(here))
        yield from (Path(here, name) for name in names)
