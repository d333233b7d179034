"""What may be predicted: audio files, folders of them, the bytes of one, samples; and the words that go with them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from aer_jax.corpora.base import Waveform
from aer_jax.data.audio import decode_bytes, read_audio, to_16k, usable
from aer_jax.errors import UserError
from aer_jax.lengths import SAMPLE_RATE

# What libsndfile reads and a folder of recordings holds.
SUFFIXES = {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".nist", ".oga", ".ogg", ".opus", ".rf64"}
SUFFIXES |= {".snd", ".sph", ".voc", ".w64", ".wav"}


@dataclass(frozen=True)
class Source:
    """One recording.

    Attributes:
        name: how results and messages call it.
        content: its path, the bytes of a file, or samples.
        transcript: its words, "" where unknown.
    """

    name: str
    content: Path | bytes | Waveform
    transcript: str = ""

    def read(self) -> np.ndarray:
        """float32 [samples] at 16 kHz, of any length.

        Raises:
            BadAudio: it cannot be used; a UserError of one sentence.
        """
        if isinstance(self.content, Path):
            return to_16k(read_audio(self.content))
        where = "standard input" if self.name == "-" else self.name
        waveform = decode_bytes(self.content, where) if isinstance(self.content, bytes) else self.content
        return to_16k(usable(waveform, where)[0])

    def seconds(self) -> float | None:
        """What its header says, without reading the samples; None where that fails."""
        if isinstance(self.content, Waveform):
            return len(self.content.samples) / self.content.rate
        try:
            about = soundfile.info(io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content)
        except (soundfile.SoundFileError, OSError, ValueError):
            return None
        return about.frames / about.samplerate


def find(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are named, and the audio files below folders, sorted; each once, hidden ones left out.

    Raises:
        UserError: a folder holds no audio file.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        below = [
            Path(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
        if not below:
            raise UserError(
                f"the folder {path} holds no audio file ({', '.join(sorted(SUFFIXES))}); name the files one by one."
            )
        found.update(dict.fromkeys(sorted(below)))
    return list(found)


def samples(audio: np.ndarray, rate: int | None, name: str) -> Source:
    """Samples, [samples] or [samples, channels], as a source.

    Raises:
        UserError: no rate, or an array that is no audio.
    """
    array = np.asarray(audio)
    if array.dtype.kind != "f" or array.ndim not in (1, 2):
        raise UserError(
            f"{name}: {array.dtype} {list(array.shape)} is no audio; give float samples in [-1, 1], [samples] or "
            "[samples, channels]."
        )
    if rate is None or not 1000 <= rate <= 768_000:
        raise UserError(f"{name}: rate is {rate}; say how many samples a second, for instance rate={SAMPLE_RATE}.")
    mono_t = array if array.ndim == 1 else array.mean(axis=1)
    return Source(name, Waveform(mono_t.astype(np.float32), int(rate)))


def read_transcripts(table: str | Path) -> dict[Path, str]:
    """Words by file, from a CSV with the columns file and transcript, or from JSON lines with these keys.

    Paths in it start at its own folder.

    Raises:
        UserError: it cannot be read, lacks a column, or names a file twice with different words.
    """
    table = Path(table)
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the transcripts {table} ({error}); it is a CSV or JSONL in UTF-8.") from None
    lines = _json_lines(text, table) if text.lstrip().startswith("{") else list(_csv_lines(text))
    words: dict[Path, str] = {}
    for number, line in lines:
        file, transcript = line.get("file"), line.get("transcript")
        if not isinstance(file, str) or not isinstance(transcript, str) or not file:
            raise UserError(f"{table}, line {number}, lacks file or transcript; name both in every line.")
        path = (table.parent / file).resolve()
        if words.setdefault(path, transcript) != transcript:
            raise UserError(f"{table}, line {number}, names {file} again with other words; keep one.")
    return words


def with_transcripts(paths: Sequence[Path], words: Mapping[Path, str]) -> list[Source]:
    """The files, each with its words where the table has them."""
    return [Source(str(path), path, words.get(path.resolve(), "")) for path in paths]


def _csv_lines(text: str) -> Iterable[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for line in reader:
        yield reader.line_num, line


def _json_lines(text: str, table: Path) -> list[tuple[int, dict]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(f"{table}, line {number}, is not a JSON object; write one a line.")
        found.append((number, value))
    return found
