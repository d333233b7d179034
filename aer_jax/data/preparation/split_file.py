"""User-defined splits: a table of clips or speakers and the part of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aer_jax.corpora.base import Clip
from aer_jax.corpora.label_names import is_missing
from aer_jax.corpora.manifest.fields import part_names, part_of
from aer_jax.corpora.tables.columns import NAMES, normalise
from aer_jax.corpora.tables.read import read_table
from aer_jax.corpora.text import parse_json, read_text
from aer_jax.errors import UserError

# Names of the columns; of several that are there the first counts.
_COLUMNS = {
    "id": ("id", *NAMES["id"], "audio", *NAMES["audio"], "name"),
    "speaker": ("speaker", *NAMES["speaker"], "actor_id"),
    "part": ("part", "split", *NAMES["split"]),
}


@dataclass(frozen=True)
class SplitFile:
    """Which part each clip of a corpus belongs to.

    Attributes:
        name: of the file.
        by: "id" or "speaker".
        part_of: clip id -> "train", "validation" or "test"; clips that the file does not name are absent.
        shared: speakers, in order, with clips in more than one part.
        unknown: names of the file that no clip of the corpus has, in its order.
    """

    name: str
    by: str
    part_of: Mapping[str, str]
    shared: tuple[str, ...]
    unknown: tuple[str, ...]

    def notes(self) -> list[str]:
        """Notes for the data report."""
        notes = []
        if self.unknown:
            notes.append(
                f"{self.name} names {len(self.unknown):,} {self.by}(s) that no clip of the corpus has, the first "
                f"{self.unknown[0]}."
            )
        if self.shared:
            notes.append(
                f"{self.name} puts clips of {len(self.shared):,} speaker(s) into more than one part, the first "
                f"{self.shared[0]}: the test then says how well known voices are judged."
            )
        return notes


def read_split_file(path: Path, clips: Sequence[Clip]) -> SplitFile:
    """Read `--split FILE`: a table with the columns id or speaker, and part, or the splits.json of a dataset.

    Args:
        path: the file. Where it has both columns, id counts. An audio file's name is taken for its id.
        clips: those to be divided.

    Raises:
        UserError: the file cannot be read, names no part or an unknown one, names something twice with different
            parts, or names nothing that the corpus has.
    """
    rows = list(_rows(path))
    names = part_names(fields["part"] for _, fields in rows)
    by = "id" if rows and "id" in rows[0][1] else "speaker"
    parts: dict[str, str] = {}
    for where, fields in rows:
        name, part = fields[by], part_of("" if is_missing(fields["part"]) else fields["part"], names, where)
        if is_missing(name):
            raise UserError(f"{where} names no {by}.")
        if part and parts.setdefault(name, part) != part:
            raise UserError(f"{where} puts {by} {name} into {part}, but a line before into {parts[name]}; keep one.")
    if not parts:
        raise UserError(f"{path} puts nothing into a part; write lines with the columns id or speaker, and part.")
    return _match(path.name, by, parts, clips)


def _match(file: str, by: str, parts: dict[str, str], clips: Sequence[Clip]) -> SplitFile:
    stems = {name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]: name for name in parts}
    used: set[str] = set()
    part_of: dict[str, str] = {}
    for clip in clips:
        wanted = clip.id if by == "id" else clip.speaker
        name = wanted if wanted in parts else stems.get(wanted, "") if by == "id" else ""
        if name:
            used.add(name)
            part_of[clip.id] = parts[name]
    if not used:
        has = clips[0].id if by == "id" else clips[0].speaker
        raise UserError(
            f"no {by} of {file} is one of the corpus' (the file has {next(iter(parts))}, the corpus {has}); "
            "name clips and speakers as the corpus does."
        )
    parts_of_speaker: dict[str, set[str]] = {}
    for clip in clips:
        if clip.id in part_of and not clip.speaker_unknown:
            parts_of_speaker.setdefault(clip.speaker, set()).add(part_of[clip.id])
    shared = tuple(sorted(speaker for speaker, parts in parts_of_speaker.items() if len(parts) > 1))
    return SplitFile(file, by, part_of, shared, tuple(name for name in parts if name not in used))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    if path.suffix.casefold() == ".json" and isinstance(value := parse_json(read_text(path), str(path)), dict):
        for part, ids in value.items():  # splits.json of another dataset
            for id in ids if isinstance(ids, list) else ():
                yield f"{path}, {part}", {"id": str(id), "part": part}
        return
    table = read_table(path)
    for _, fields in table.rows:
        if isinstance(fields, UserError):
            raise fields
    column_of = _columns(table.columns, table.header)
    for where, fields in table.rows:
        assert isinstance(fields, dict), where
        yield where, {name: str(fields.get(column, "")) for name, column in column_of.items()}


def _columns(header: Sequence[str], where: str) -> dict[str, str]:
    spelled = {normalise(name): name for name in header}
    column_of = {
        known: next(spelled[name] for name in names if name in spelled)
        for known, names in _COLUMNS.items()
        if spelled.keys() & {*names}
    }
    if "part" not in column_of or len(column_of) == 1:
        raise UserError(
            f"{where}: a split file needs the columns id or speaker, and part (or split); it has "
            f"{', '.join(header) or 'none'}."
        )
    return column_of
