"""Recordings to predict: audio files, folders of them, the bytes of one, samples; and their transcripts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aer_jax.corpora.base import Waveform
from aer_jax.corpora.manifest.fields import audio_path, text_of
from aer_jax.corpora.tables.columns import choose
from aer_jax.corpora.tables.read import read_table
from aer_jax.data.audio.read import BadAudio, decode_bytes, read_audio, seconds, to_16k, usable
from aer_jax.errors import UserError

# What libsndfile and FFmpeg read and a folder of recordings holds; other files are read where they are named.
SUFFIXES = {
    ".3g2", ".3gp", ".3gpp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf", ".au",
    ".avi", ".awb", ".caf", ".dsf", ".dts", ".eac3", ".f4v", ".flac", ".flv", ".m2ts", ".m4a", ".m4b",
    ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpc", ".mpeg", ".mpg", ".mpga", ".mts",
    ".nist", ".oga", ".ogg", ".ogv", ".ogx", ".opus", ".qt", ".ra", ".rf64", ".rm", ".snd", ".sph",
    ".spx", ".svx", ".tak", ".ts", ".tta", ".voc", ".vob", ".w64", ".wav", ".wave", ".weba", ".webm",
    ".wma", ".wmv", ".wv",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One recording.

    Attributes:
        name: how results and messages call it.
        content: its path, the bytes of a file, or samples; the error where it is nothing of these.
        transcript: its words, "" where unknown.
    """

    name: str
    content: Path | bytes | Waveform | BadAudio
    transcript: str = ""

    def read(self) -> np.ndarray:
        """float32 [samples] at 16 kHz, of any length.

        Raises:
            BadAudio: it cannot be used; a UserError of one sentence.
        """
        if isinstance(self.content, BadAudio):
            raise self.content
        if isinstance(self.content, Path):
            return to_16k(read_audio(self.content))
        where = "standard input" if self.name == "-" else self.name
        waveform = decode_bytes(self.content, where) if isinstance(self.content, bytes) else self.content
        return to_16k(usable(waveform, where)[0])

    def seconds(self) -> float | None:
        """How long it is, without decoding it; None where that fails."""
        if isinstance(self.content, Waveform):
            return len(self.content.samples) / self.content.rate
        return None if isinstance(self.content, BadAudio) else seconds(self.content)


def find_audio(paths: Iterable[str | Path], skipped: Counter[str] | None = None) -> list[Path]:
    """Files as they are named, and the audio files below folders, sorted; each once, hidden ones left out.

    Args:
        paths: files and folders.
        skipped: counts the other files of folders, by ending.

    Raises:
        UserError: a folder holds no audio file.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            files[path] = None
            continue
        others: Counter[str] = Counter()
        below = sorted(_audio_below(path, others))
        if not below:
            has = f", only {format_skipped(others)}" if others else ""
            raise UserError(
                f"the folder {path} holds no audio file{has}; name the files one by one. Taken from folders: "
                f"{', '.join(sorted(SUFFIXES))}."
            )
        files.update(dict.fromkeys(below))
        if skipped is not None:
            skipped.update(others)
    return list(files)


def format_skipped(skipped: Mapping[str, int]) -> str:
    """`3 .txt, 1 without an ending`, the most frequent first."""
    return ", ".join(
        f"{count} {ending}" for ending, count in sorted(skipped.items(), key=lambda pair: (-pair[1], pair))
    )


def _audio_below(path: Path, others: Counter[str]) -> Iterable[Path]:
    seen = {os.path.realpath(path)}

    def unreadable(error: OSError) -> None:
        others[f"folders that cannot be read ({error.filename}, {error.strerror})"] += 1

    for folder, folders, names in os.walk(path, followlinks=True, onerror=unreadable):
        real = {name: os.path.realpath(os.path.join(folder, name)) for name in folders}
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and real[name] not in seen]
        seen.update(real.values())
        for name in names:
            ending = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if ending in SUFFIXES:
                yield Path(folder, name)
            else:
                others[ending or "without an ending"] += 1


def read_transcripts(table: str | Path) -> dict[Path, str]:
    """Words by file, from a table of any format that manifests have: CSV, JSON, Excel, Parquet.

    Args:
        table: with a column for the file, its path relative to the table's folder, and one for the transcript.

    Raises:
        UserError: it cannot be read, lacks a column, or names a file twice with different words.
    """
    content = read_table(table)
    words: dict[Path, str] = {}
    file_column, words_column = (_column(content.columns, name, content.header) for name in ("audio", "transcript"))
    for where, row in content.rows:
        if isinstance(row, UserError):
            raise row
        file = text_of(row.get(file_column), "file", where)
        if not file:
            raise UserError(f"{where}, names no file; write one in every line.")
        path = _resolved(audio_path(file, content.path.parent, where))
        transcript = text_of(row.get(words_column), "transcript", where)
        if words.setdefault(path, transcript) != transcript:
            raise UserError(f"{where}, names {file} again with other words; keep one.")
    return words


def _resolved(path: Path) -> Path:
    """Without links; `Path.resolve` fails where links lead to each other, and NUL bytes are no path of any file."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return path


def _column(columns: Sequence[str], name: str, where: str) -> str:
    called = "file" if name == "audio" else name
    try:
        column = choose(columns, name, where)
    except UserError:
        raise UserError(f'{where}: several columns could be the {called}; name one of them "{called}".') from None
    if column is None:
        raise UserError(f'{where}: there is no column "{called}"; the columns: {", ".join(columns) or "none"}.')
    return column


def with_transcripts(paths: Sequence[Path], words: Mapping[Path, str]) -> list[Source]:
    """The files, each with its words where the table has them."""
    return [Source(str(path), path, words.get(_resolved(path), "")) for path in paths]
