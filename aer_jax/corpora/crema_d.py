"""CREMA-D: twelve sentences acted by 91 actors, voted on by listeners (Cao et al., 2014).

The votes are those of listeners who heard the voice alone. The emotion in a file's name is what the actor
intended, not what anybody heard, so it is never read as a label.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from aer_jax.corpora.base import Clip, Corpus
from aer_jax.corpora.folders import below, find_files
from aer_jax.corpora.text import read_text
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

LABELS = {"A": "angry", "D": "disgust", "F": "fear", "H": "happy", "N": "neutral", "S": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
_NAME = re.compile(
    rf"(?P<words>(?P<actor>\d{{4}})_(?P<sentence>{'|'.join(SENTENCES)})_[A-Z]{{3}})_(?P<level>[A-Z]{{1,2}})"
)
# index // 100000 tells what the listeners were given: 1 voice only, 2 face only, 3 both.
_VOICE, _MODES = 1, (1, 2, 3)


def read(root: Path, lenient: bool = False) -> Corpus:
    """Read CREMA-D in the layout of its repository.

    Args:
        root: the folder that holds `AudioWAV/`, `processedResults/tabulatedVotes.csv` and, if fetched,
            `VideoDemographics.csv`, which tells the actors' sex.
        lenient: drop and count lines that cannot be read.

    Returns:
        All clips on disk by name. Clips without a vote row have no votes; vote rows without a clip and
        files with strange names are in `dropped`.

    Raises:
        UserError: a part is missing, or a line of the votes is not as published.
    """
    folder, table = below(root, "AudioWAV"), below(root, "processedResults", "tabulatedVotes.csv")
    for part in (folder, table):
        if not part.exists():
            raise UserError(f"{root} is not CREMA-D: {part} is missing; give the folder of its repository.")
    corpus = Corpus("crema-d", tuple(LABELS.values()), tuple(LABELS.values()), [], lenient=lenient)
    corpus.speakers = read_actors(root / "VideoDemographics.csv", corpus)
    votes = read_voice_votes(table, corpus)
    on_disk: dict[str, Path] = {}
    for path in find_files(folder, corpus).values():
        name = _NAME.fullmatch(path.stem.upper())
        if name is None:
            corpus.drop("file name is not actor_sentence_emotion_level", path.name)
            continue
        id = clip_id(path.stem)
        if id in on_disk:
            corpus.drop("second audio file of one clip, not read", path.name)
            continue
        on_disk[id] = path
        corpus.clips.append(Clip(id, name["actor"], path, votes.get(id, ()), SENTENCES[name["sentence"]]))
    corpus.clips.sort(key=lambda clip: clip.id)
    for id in votes:
        if id not in on_disk:
            corpus.drop("vote row whose clip is not on disk", id)
    if not corpus.clips:
        raise UserError(f"{folder} holds no CREMA-D clip (actor_sentence_emotion_level.wav); fetch the audio first.")
    return corpus


def clip_id(name: str) -> str:
    """Clip id of a file or row: the audio of 1040_ITH_SAD_XX is published as 1040_ITH_SAD_X."""
    match = _NAME.fullmatch(name.upper())
    if match is None:
        return name
    return f"{match['words']}_{'XX' if match['level'] == 'X' else match['level']}"


def read_voice_votes(table: Path, corpus: Corpus) -> dict[str, tuple[Vote, ...]]:
    """Voice-only rows of tabulatedVotes.csv: clip -> one vote per count."""
    votes: dict[str, tuple[Vote, ...]] = {}
    rows = csv.reader(io.StringIO(read_text(table), newline=""), strict=True)
    try:
        header = next(rows, [])
        for name in (*LABELS, "fileName", "numResponses"):
            if name not in header:
                raise UserError(f'{table}, line 1: the column "{name}" is missing; fetch the table again.')
        for row in rows:
            where = f"{table}, line {rows.line_num}"
            with corpus.reading(where):
                if len(row) != len(header):
                    raise UserError(f"{where} has {len(row)} fields, not {len(header)}; fetch the table again.")
                votes_of_clip = _voice_votes(row, dict(zip(header, row, strict=True)), where)
                if votes_of_clip is None:
                    continue
                clip, answers = votes_of_clip
                if clip in votes:
                    raise UserError(f"{where}: {clip} has a second voice-only row; keep one.")
                votes[clip] = answers
    except csv.Error as error:
        raise UserError(f"{table}, line {rows.line_num} is not CSV ({error}).") from None
    return votes


def read_actors(table: Path, corpus: Corpus) -> dict[str, dict[str, str]]:
    """Actor -> sex, from VideoDemographics.csv; empty without that table."""
    actors: dict[str, dict[str, str]] = {}
    if not table.exists():
        return actors
    rows = csv.DictReader(io.StringIO(read_text(table), newline=""), strict=True)
    try:
        for row in rows:
            with corpus.reading(f"{table}, line {rows.line_num}"):
                if not row.get("ActorID") or not row.get("Sex"):
                    raise UserError(f"{table}, line {rows.line_num} has no ActorID or no Sex; fetch the table again.")
                actors[row["ActorID"]] = {"sex": row["Sex"].lower()}
    except csv.Error as error:
        raise UserError(f"{table}, line {rows.line_num} is not CSV ({error}).") from None
    return actors


def _voice_votes(row: list[str], fields: dict[str, str], where: str) -> tuple[str, tuple[Vote, ...]] | None:
    # The index is the first column; its header cell is empty.
    mode = _count(row[0], "the index", where) // 100_000
    if mode not in _MODES:
        raise UserError(f"{where}: the index {row[0]} tells no mode; it starts with 1, 2 or 3.")
    if mode != _VOICE:
        return None
    clip = clip_id(fields["fileName"])
    counts = {label: _count(fields[letter], letter, where) for letter, label in LABELS.items()}
    if sum(counts.values()) != _count(fields["numResponses"], "numResponses", where):
        raise UserError(f"{where}: the counts of {clip} do not add up to its numResponses.")
    return clip, tuple(Vote(clip, label) for label, n in counts.items() for _ in range(n))


def _count(text: str, what: str, where: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UserError(f'{where}: {what} is "{text}", not a whole number of at least 0.')
    return int(text)
