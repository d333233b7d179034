"""The JSON that the code of "Scaling Ambiguity" (Zhang et al., 2026) reads: one record per turn.

    {"id": "Ses01F_impro01_F000", "need_prediction": "yes", "emotion": ["Neutral state", "Excited"],
     "speaker": "Ses01_F", "groundtruth": "Excuse me.", "audio": "Session1/sentences/wav/.../Ses01F_impro01_F000.wav"}

`groundtruth` is the transcript: a string, a list of one string, or a string that looks like such a list.
`need_prediction` is "yes" where every vote is for one of the four classes; it is derived here (`--outside drop`) and
compared. For MSP-Podcast `speaker` is the number of the podcast.
"""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path
from typing import Any

from aer_jax.corpora.base import UNKNOWN_SPEAKER, Clip, Corpus
from aer_jax.corpora.folders import same_but_for_case
from aer_jax.corpora.iemocap import reader as iemocap
from aer_jax.corpora.iemocap.blocks import UTTERANCE
from aer_jax.corpora.label_names import is_missing
from aer_jax.corpora.msp_podcast import reader as msp_podcast
from aer_jax.corpora.msp_podcast.votes import TURN
from aer_jax.corpora.text import parse_json, read_text
from aer_jax.errors import UserError, nearest
from aer_jax.labels.votes import Vote

# Both corpora's words. Other-... is Other.
LABELS = iemocap.LABELS | msp_podcast.LABELS | {"Frustrated": "frustrated", "Surprised": "surprise"}
CLASSES = ("angry", "happy", "neutral", "sad")
_FIELDS = ("id", "need_prediction", "emotion", "speaker", "groundtruth", "audio")
_ROOTS = ("IEMOCAP_full_release", "Audio", "Audios")


def read(root: Path, lenient: bool = False, excited: str = "happy", audio: str | Path | None = None) -> Corpus:
    """Read the records.

    Args:
        root: the JSON file.
        lenient: drop and count records that cannot be read.
        excited: "happy" counts Excited as happiness, "apart" keeps it as a label of its own.
        audio: the folder that the paths of the clips start from; None takes the file's own.

    Returns:
        All records in the file's order, which is that of the conversations.

    Raises:
        UserError: the file is no list of records, or a record is not as described; it names file and record.
    """
    table = label_table(excited)
    corpus = Corpus(
        "paper-json",
        tuple(dict.fromkeys(table.values())),
        CLASSES,
        [],
        licensed=True,  # the records are IEMOCAP's or MSP-Podcast's
        choices={"excited": excited},
        lenient=lenient,
    )
    records = parse_json(read_text(root), str(root)) if root.is_file() else None
    if not isinstance(records, list):
        raise UserError(f"{root} is not a file with a JSON list of records; give the file itself with --root.")
    folder = Path(audio) if audio else root.parent
    seen: dict[str, Any] = {}
    wrong_flags = 0
    for number, record in enumerate(records, 1):
        where = f"{root}, record {number}"
        with corpus.reading(where):
            clip, blank = _clip(record, table, folder, where)
            if clip.id in seen:
                if record != seen[clip.id]:
                    raise UserError(f"{where}: a second record of {clip.id} that says something else; keep one.")
                corpus.drop("record that stands there twice", clip.id)
                continue
            seen[clip.id] = record
            for _ in range(blank):
                corpus.drop("rater's answer is blank", clip.id)
            corpus.clips.append(clip)
            inside = bool(clip.votes) and all(vote.label in CLASSES for vote in clip.votes)
            wrong_flags += inside != (record["need_prediction"] == "yes")
    if not corpus.clips:
        raise UserError(f"{root} holds no record that can be read.")
    _note(corpus, wrong_flags)
    return corpus


def label_table(excited: str = "happy") -> dict[str, str]:
    """Folded word -> label."""
    return {word.casefold(): label for word, label in (LABELS | iemocap.labels_with(excited)).items()}


def label(word: Any, table: dict[str, str], where: str) -> str:
    """The label of one of the raters' words."""
    if not isinstance(word, str):
        raise UserError(f"{where}: a label is text, not {json.dumps(word)[:80]}.")
    folded = " ".join(word.split()).casefold()
    name = table.get("other" if folded.startswith("other-") else folded)
    if name is None:
        raise UserError(f'{where}: "{word}" is no label.{nearest(word, LABELS)}')
    return name


def transcript(value: Any, where: str) -> str:
    """The words in any of the three spellings of `groundtruth`; "" for an empty list or null."""
    if isinstance(value, list):
        if len(value) > 1:
            raise UserError(f"{where}: groundtruth is a list of {len(value)}, not of one string.")
        value = value[0] if value else ""
    if value is None or value != value:  # null and NaN
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: groundtruth is neither text nor a list of one text.")
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        inner = _literal(text)
        if isinstance(inner, list) and len(inner) <= 1 and all(isinstance(words, str) for words in inner):
            text = inner[0] if inner else ""
        # Anything else in brackets, such as [laughter], is what was said.
    return " ".join(text.split())


def _literal(text: str) -> Any:
    for read_literal in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
                value = read_literal(text)
            json.dumps(value, ensure_ascii=False).encode()
            return value
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _clip(record: Any, table: dict[str, str], folder: Path, where: str) -> tuple[Clip, int]:
    """The clip of a record, and how many of its raters' answers are blank."""
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object.")
    for name in _FIELDS:
        if name not in record:
            raise UserError(f'{where}: "{name}" is missing.{nearest(name, record.keys() - {*_FIELDS})}')
    id, speaker, path = (_text(record[name], name, where) for name in ("id", "speaker", "audio"))
    if record["need_prediction"] not in ("yes", "no"):
        raise UserError(f'{where}: need_prediction is {json.dumps(record["need_prediction"])[:80]}, not "yes" or "no".')
    if not isinstance(record["emotion"], list):
        raise UserError(f"{where}: emotion is not a list of the raters' labels.")
    words = [word for word in record["emotion"] if not (isinstance(word, str) and is_missing(word))]
    votes = tuple(Vote(id, label(word, table, where)) for word in words)
    session = ""
    if turn := UTTERANCE.fullmatch(id):
        session = id[4]
        speaker = f"Ses0{session}_{turn['speaker']}"  # the id tells who speaks, whatever the field says
    elif speaker.casefold() == UNKNOWN_SPEAKER.casefold() or is_missing(speaker):
        speaker = UNKNOWN_SPEAKER
    text = transcript(record["groundtruth"], where)
    clip = Clip(id, speaker, _audio(folder, path), votes, text, session=session)
    return clip, len(record["emotion"]) - len(words)


def _audio(folder: Path, path: str) -> Path:
    first, _, rest = path.partition("/")
    if first in _ROOTS and rest and not (folder / first).is_dir():
        path = rest
    return same_but_for_case(folder / path)


def _text(value: Any, name: str, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{where}: "{name}" is not text, or empty.')
    return value.strip()


def _note(corpus: Corpus, wrong_flags: int) -> None:
    if wrong_flags:
        corpus.notes.append(
            f"need_prediction disagrees with the votes of {wrong_flags:,} records: it is to be yes where every vote "
            f"is for {', '.join(CLASSES)}. The votes decide here."
        )
    podcasts = sum(TURN.fullmatch(f"{clip.id}.wav") is not None for clip in corpus.clips)
    if podcasts:
        corpus.notes.append(
            f"The speaker of {podcasts:,} records of MSP-Podcast is the number of the podcast: splits by speaker keep "
            "podcasts apart, but who speaks in two podcasts may be on both sides."
        )
    silent = sum(not clip.transcript for clip in corpus.clips)
    if silent:
        corpus.notes.append(f"{silent:,} records have no transcript.")
