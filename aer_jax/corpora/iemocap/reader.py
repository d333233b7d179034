"""IEMOCAP: ten actors in five sessions of two, judged turn by turn (Busso et al., 2008).

The votes are those of the external evaluators, read from the evaluation files one by one; the consensus label
in the head of a block is not a vote, and the actors' ratings of themselves is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from aer_jax.corpora.base import Clip, Corpus
from aer_jax.corpora.folders import below, entries, find, find_files, same_but_for_case
from aer_jax.corpora.iemocap.blocks import DIALOGUE, UTTERANCE, RaterAnswer, read_answers
from aer_jax.corpora.text import read_lines
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

# The words of the evaluation files, and what they are called here.
LABELS = {
    "Neutral": "neutral",
    "Neutral state": "neutral",
    "Happiness": "happy",
    "Excited": "excited",  # "happy" with --excited happy
    "Sadness": "sad",
    "Anger": "angry",
    "Frustration": "frustrated",
    "Surprise": "surprise",
    "Fear": "fear",
    "Disgust": "disgust",
    "Other": "other",
}
CLASSES = ("angry", "happy", "neutral", "sad")
SELF_EVALUATION = "self-evaluation of an actor"
_TRANSCRIPTION = re.compile(rf"\s*(?P<id>{UTTERANCE.pattern})\s*(?:\[[^\]]*\])?\s*:(?P<text>.*)")


def labels_with(excited: str) -> dict[str, str]:
    """The table, with Excited counted as happy or standing apart."""
    return LABELS | {"Excited": {"happy": "happy", "apart": "excited"}[excited]}


def read(
    root: Path,
    lenient: bool = False,
    excited: str = "happy",
    multi_label: str = "shared",
    improvised: bool = False,
) -> Corpus:
    """Read the full release of IEMOCAP.

    Args:
        root: the folder that holds `Session1/` to `Session5/`; sessions may be missing.
        lenient: drop and count lines that cannot be read.
        excited: "happy" counts Excited as happiness, "apart" keeps it as a label of its own.
        multi_label: of an answer that names k labels, "shared" gives each 1/k of a vote, "whole" a full vote each.
        improvised: leave the scripted dialogues out; they repeat the same words in every session.

    Returns:
        All turns with a block in an evaluation file. What is no turn, self-evaluations and files without a
        counterpart are in `dropped`.

    Raises:
        UserError: no session is there, or a line is not as published; it names file and line.
    """
    sessions = _sessions(root)
    if not sessions:
        raise UserError(f"{root} is not IEMOCAP: it has no folder Session1 to Session5; give the full release.")
    table = labels_with(excited)
    corpus = Corpus(
        "iemocap",
        tuple(dict.fromkeys(table.values())),
        CLASSES,
        [],
        licensed=True,
        choices={
            "excited": excited,
            "multi_label": multi_label,
            "improvised": "only" if improvised else "and scripted",
        },
        lenient=lenient,
    )
    if len(sessions) < 5:
        corpus.notes.append(f"Only {', '.join(folder.name for folder in sessions)} of five sessions are there.")
    for folder in sessions:
        _read_session(folder, corpus, table, multi_label == "whole", improvised)
    if not corpus.clips:
        raise UserError(f"{root} holds no turn with an evaluation; are Session*/dialog/EmoEvaluation/*.txt there?")
    return corpus


def _sessions(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    sessions = [folder for n in range(1, 6) if (folder := find(root, f"Session{n}")) and folder.is_dir()]
    release = find(root, "IEMOCAP_full_release")
    return _sessions(release) if release and not sessions else sessions


def _read_session(folder: Path, corpus: Corpus, table: dict[str, str], whole: bool, improvised: bool) -> None:
    evaluations = below(folder, "dialog", "EmoEvaluation")
    if not evaluations.is_dir():
        raise UserError(f"{folder} is not a session of IEMOCAP: {evaluations} is missing.")
    wavs, transcriptions = below(folder, "sentences", "wav"), below(folder, "dialog", "transcriptions")
    audio = find_files(wavs, corpus) if wavs.is_dir() else {}
    evaluated: set[str] = set()
    for path in entries(evaluations).values():
        if path.name.startswith(".") or path.suffix.casefold() != ".txt":
            continue
        if not (name := DIALOGUE.fullmatch(path.stem)) or name["session"] != folder.name[-1]:
            corpus.drop("evaluation file whose name is no dialogue of its session", str(path))
            continue
        # Answers first: a line that cannot be read is named whether or not its dialogue is wanted.
        answers = read_answers(path, corpus, LABELS)
        evaluated |= answers.keys()
        if improvised and name["kind"] == "script":
            for id in answers:
                corpus.drop("scripted dialogue", id)
            continue
        words = _transcripts(same_but_for_case(transcriptions / path.name), answers, corpus)
        for id, given in answers.items():
            votes = tuple(_votes(id, given, corpus, table, whole))
            file = audio.get(id.casefold(), wavs / path.stem / f"{id}.wav")
            turn = UTTERANCE.fullmatch(id)
            assert turn, id  # `read_answers` lets no other name through
            speaker = f"Ses0{name['session']}_{turn['speaker']}"
            corpus.speakers[speaker] = {"sex": "female" if speaker.endswith("F") else "male"}
            corpus.clips.append(Clip(id, speaker, file, votes, words.get(id, ""), session=name["session"]))
    known = {id.casefold() for id in evaluated}
    for file_name, path in audio.items():
        if file_name not in known:
            corpus.drop("clip on disk without an evaluation", path.stem)


def _votes(id: str, answers: list[RaterAnswer], corpus: Corpus, table: dict[str, str], whole: bool) -> Iterator[Vote]:
    for answer in answers:
        if not answer.rater.startswith("E"):
            corpus.drop(SELF_EVALUATION, f"{id} {answer.rater}")
        elif not answer.labels:
            corpus.drop("evaluator's answer is blank", f"{id} {answer.rater}")
        else:
            # Shares are of the labels as they were said, so that "Excited; Happiness; Neutral" gives happiness the
            # same two thirds whether Excited is counted with it here or added to it later.
            weight = 1.0 if whole else 1.0 / len(answer.labels)
            for label in answer.labels:
                yield Vote(id, table[label], answer.rater, weight)


def _transcripts(path: Path, ids: dict[str, list[RaterAnswer]], corpus: Corpus) -> dict[str, str]:
    """id -> words. Lines without a time, of no turn (XX0) or of unknown turns are counted."""
    if not path.is_file():
        corpus.drop("transcription file missing", path.stem)
        return {}
    words: dict[str, str] = {}
    for where, line in read_lines(path):
        match = _TRANSCRIPTION.fullmatch(line)
        if match and match["id"] in ids and match["id"] not in words:
            words[match["id"]] = " ".join(match["text"].split())
        elif line.strip():
            corpus.drop("transcription line of no evaluated turn", where)
    return words
