"""The raters' answers of MSP-Podcast in the four forms that its releases give them.

labels.txt            MSP-PODCAST_0001_0008.wav; N; A:2.200000; V:4.000000; D:2.600000;
                      WORKER0000001; Neutral; Neutral,Confused; A:1.0; V:4.0; D:1.0;
labels_detailed.csv   FileName, EmoDetail: such a rater's line, quoted (1.7 to 1.12)
labels_detailed.csv   FileName, Workers or WorkerID, EmoClass_Major, ... (1.6, 2.0)
labels_detailed.json  {file: {worker: {"EmoClass_Major": ..., ...}}}
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from aer_jax.corpora.base import Corpus
from aer_jax.corpora.label_names import is_missing
from aer_jax.corpora.text import parse_json, read_lines, read_text
from aer_jax.errors import UserError, nearest
from aer_jax.labels.votes import Vote

# The first that a release has is read: fields that are already apart before lines that must be cut.
VOTE_FILES = ("labels_detailed.json", "labels_detailed.csv", "labels.txt")
BLANK = "rater's answer is blank"
TURN = re.compile(r"(?P<id>MSP-PODCAST(?:_[0-9]+)+)\.wav", re.IGNORECASE)
_VALUE = r"\s*[0-9.]*\s*"
# Read from the right: what a rater wrote after "Other-" may hold semicolons, commas and colons.
_RATER = re.compile(rf"(?P<rater>[^;]+?)\s*;(?P<answer>.*);\s*A:{_VALUE};\s*V:{_VALUE};\s*D:{_VALUE};?\s*", re.DOTALL)
_TWO_LINES = re.compile(r"A:\s*[0-9.]+\s*;\s*V:\s*[0-9.]+\s*;\s*D:\s*[0-9.]+")
_HEAD = re.compile(
    rf"(?P<file>\S+\.wav)\s*;\s*[ASHUFDCNOX]\s*;\s*A:{_VALUE};\s*V:{_VALUE};\s*D:{_VALUE};?\s*", re.IGNORECASE
)
_WORKER = re.compile(r"[A-Za-z_-]*[0-9][A-Za-z0-9_-]*")  # with a digit: no emotion is taken for a worker


def read_votes(path: Path, corpus: Corpus, labels: Mapping[str, str]) -> dict[str, tuple[Vote, ...]]:
    """Turn -> one vote per rater; `labels` maps the primary emotions.

    Raises:
        UserError: a line or record is not as published, or a rater answers twice about a turn.
    """
    forms = {".json": _from_json, ".csv": _from_csv, ".txt": _from_text}
    votes: dict[str, list[Vote]] = {}
    raters: set[tuple[str, str]] = set()
    folded = {name.casefold(): label for name, label in labels.items()}
    answers = forms[path.suffix.casefold()](path, corpus)
    for where, id, rater, primary in tqdm(answers, desc="votes", unit="vote", delay=2):
        with corpus.reading(where):
            if not _WORKER.fullmatch(rater):
                raise UserError(f'{where}: "{rater}" is no rater.')
            if (id, rater) in raters:
                raise UserError(f"{where}: a second answer of {rater} about {id}; keep one.")
            if is_missing(primary.rstrip("; \t")):
                corpus.drop(BLANK, f"{id} {rater}")
            else:
                vote = Vote(id, _label(primary, folded, labels, where), rater)
                votes.setdefault(id, []).append(vote)
            raters.add((id, rater))
    return {id: tuple(heard) for id, heard in votes.items()}


def turn(file: str, where: str) -> str:
    """The id of a file name."""
    name = TURN.fullmatch(file.strip())
    if not name:
        raise UserError(f'{where}: "{file.strip()}" is no file name of MSP-Podcast (MSP-PODCAST_0001_0008.wav).')
    return name["id"].upper()


def read_csv(path: Path, corpus: Corpus, *needed: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row stands and its cells by column, lower case; `needed` columns must be there."""
    rows = csv.reader(io.StringIO(read_text(path, latin_1=True), newline=""), strict=True)
    try:
        header = [name.strip().casefold() for name in next(rows, [])]
        for name in needed:
            if header.count(name.casefold()) != 1:
                raise UserError(f'{path}, line 1: the column "{name}" must stand there once; fetch the file again.')
        for row in rows:
            where, cells = f"{path}, line {rows.line_num}", None
            with corpus.reading(where):
                if row and len(row) != len(header):
                    raise UserError(f"{where} has {len(row)} cells, the header has {len(header)}.")
                cells = dict(zip(header, row, strict=True)) if row else None
            if cells is not None:
                yield where, cells
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not CSV ({error}).") from None


_Answers = Iterator[tuple[str, str, str, str]]  # where, turn, rater, what they chose


def _from_text(path: Path, corpus: Corpus) -> _Answers:
    id: str | None = None
    seen: set[str] = set()
    lines = list(read_lines(path))
    for number, (where, line) in enumerate(lines, 1):
        answer = None
        with corpus.reading(where):
            if not line.strip():
                id = None
            elif line.lstrip().upper().startswith("MSP-"):
                id = None  # whatever follows a head that cannot be read belongs to nobody
                head = _HEAD.fullmatch(line.strip())
                if not head:
                    raise UserError(f"{where} is no head of a turn (file; class; A:; V:; D:).")
                if (file := turn(head["file"], where)) in seen:
                    raise UserError(f"{where}: a second head of {file}; keep one.")
                seen.add(id := file)
            else:
                answer = _rater_line(line, where)
                if id is None:
                    raise UserError(f"{where}: an answer that belongs to no turn.")
                if number == len(lines) and not line.rstrip().endswith(";"):
                    raise UserError(f"{where} ends inside an answer; fetch the file again.")
        if answer and id:
            yield where, id, *answer


def _from_csv(path: Path, corpus: Corpus) -> _Answers:
    for where, cells in read_csv(path, corpus, "FileName"):
        rater = next((name for name in ("workerid", "workers", "worker") if name in cells), "")
        if "emodetail" not in cells and not (rater and "emoclass_major" in cells):
            raise UserError(
                f"{path}, line 1: the columns are neither FileName, EmoDetail nor FileName, Workers or WorkerID and "
                "EmoClass_Major; fetch the file again."
            )
        answer = None
        with corpus.reading(where):
            id = turn(cells["filename"], where)
            if "emodetail" in cells:
                answer = _rater_line(cells["emodetail"], where)
            else:
                answer = cells[rater].strip(), cells["emoclass_major"]
        if answer:
            yield where, id, *answer


def _from_json(path: Path, corpus: Corpus) -> _Answers:
    files = parse_json(read_text(path), str(path))
    if not isinstance(files, dict):
        raise UserError(f"{path} is not a JSON object of files; fetch it again.")
    for file, workers in files.items():
        where, answers = f"{path}, {file}", {}
        with corpus.reading(where):
            id = turn(file, where)
            if not isinstance(workers, dict):
                raise UserError(f"{where}: not an object of workers.")
            answers = workers
        for rater, answer in answers.items():
            primary = None
            with corpus.reading(f"{where}, {rater}"):
                if not isinstance(answer, dict) or "EmoClass_Major" not in answer:
                    raise UserError(f'{where}, {rater}: no "EmoClass_Major".')
                primary = answer["EmoClass_Major"]
                if primary is None or primary != primary:  # null and NaN
                    primary = ""
                if not isinstance(primary, str):
                    raise UserError(f'{where}, {rater}: "EmoClass_Major" is not text.')
            if isinstance(primary, str):
                yield f"{where}, {rater}", id, rater.strip(), primary


def _rater_line(line: str, where: str) -> tuple[str, str]:
    match = _RATER.fullmatch(line.strip())
    if not match or _TWO_LINES.search(match["answer"]):
        raise UserError(f"{where} is no answer of one rater (worker; primary; secondary; A:; V:; D:).")
    return match["rater"], match["answer"]


def _label(answer: str, folded: Mapping[str, str], labels: Mapping[str, str], where: str) -> str:
    if re.match(r"\s*other(?![a-z])", answer, re.IGNORECASE):
        return labels["Other"]
    primary = answer.partition(";")[0].strip()
    if primary.casefold() not in folded:
        raise UserError(f'{where}: "{primary}" is no primary emotion.{nearest(primary, labels)}')
    return folded[primary.casefold()]
