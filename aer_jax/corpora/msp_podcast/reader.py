"""MSP-Podcast, releases 1.6 to 2.0: turns of podcasts, each judged by at least five people (Lotfian & Busso, 2019).

Every release names its folders and files a little differently, so they are looked for without regard to case and
under all their names. A vote is the primary emotion of one rater; secondary emotions and attributes are not read.
"""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from aer_jax.corpora.base import UNKNOWN_SPEAKER, Clip, Corpus
from aer_jax.corpora.folders import find, find_files
from aer_jax.corpora.msp_podcast.tables import Place, read_consensus, read_partitions, read_speakers
from aer_jax.corpora.msp_podcast.votes import VOTE_FILES, read_votes
from aer_jax.corpora.text import read_text
from aer_jax.errors import UserError

# The primary emotions as raters chose them, and what they are called here; Other-... is Other, whatever follows.
LABELS = {
    "Angry": "angry",
    "Happy": "happy",
    "Neutral": "neutral",
    "Sad": "sad",
    "Surprise": "surprise",
    "Fear": "fear",
    "Disgust": "disgust",
    "Contempt": "contempt",
    "Other": "other",
}
CLASSES = ("angry", "happy", "neutral", "sad")


def read(root: Path, lenient: bool = False) -> Corpus:
    """Read a release of MSP-Podcast.

    Args:
        root: the folder that holds the labels, the audio and, where the release has them, the transcripts.
        lenient: drop and count lines that cannot be read.

    Returns:
        All turns with votes by name. Turns without votes (Test3), without a partition although others have one,
        and files without a counterpart are in `dropped`.

    Raises:
        UserError: a part is missing, two files contradict each other, or a line is not as published.
    """
    corpus = Corpus("msp-podcast", tuple(LABELS.values()), CLASSES, [], licensed=True, lenient=lenient)
    folder = _needed(root, "labels", "label")
    audio_folder = _needed(root, "audios", "audio")
    audio = find_files(audio_folder, corpus)
    vote_file = _needed(folder, *VOTE_FILES)
    corpus.choices["votes"] = f"primary emotion, from {vote_file.name}"
    votes = read_votes(vote_file, corpus, LABELS)
    place_of = _places(root, folder, corpus)
    transcripts = find(root, "transcripts", "transcript")
    words = find_files(transcripts, corpus, (".txt",)) if transcripts else {}

    divided = any(place.partition for place in place_of.values())
    for id in tqdm(sorted(votes), desc="transcripts", unit="turn", delay=2):
        place = place_of.get(id, Place())
        if divided and not place.partition:
            corpus.drop("turn with votes in no partition", id)
            continue
        with corpus.reading(id):
            text = words.get(id.casefold())
            corpus.clips.append(
                Clip(
                    id=id,
                    speaker=place.speaker,
                    audio=audio.get(id.casefold(), audio_folder / f"{id}.wav"),
                    votes=votes[id],
                    transcript=" ".join(read_text(text, latin_1=True).split()) if text else "",
                    split=place.partition,
                )
            )
    _account_for_the_rest(corpus, votes.keys(), place_of, audio)
    if not corpus.clips:
        raise UserError(f"{vote_file} holds no turn with a vote; fetch the release again.")
    return corpus


def _places(root: Path, folder: Path, corpus: Corpus) -> dict[str, Place]:
    """Speaker and partition of each turn from the tables that are there; two that disagree are refused."""
    places: dict[str, Place] = {}
    sources = []
    for find_in, names, read_table in (
        ((folder, root), ("labels_consensus.csv", "labels_concensus.csv"), read_consensus),
        ((root, folder), ("speaker_ids.txt", "speaker_id.txt"), read_speakers),
        ((root, folder), ("partitions.txt", "partition.txt"), read_partitions),
    ):
        path = next((path for place in find_in if (path := find(place, *names))), None)
        if path is None:
            continue
        sources.append(path.name)
        for where, id, place in read_table(path, corpus):
            known = places.get(id, Place())
            places[id] = Place()  # lenient reading believes neither of two lines that contradict each other
            with corpus.reading(where):
                places[id] = known.joined(place, id, where)
    if not any(place.speaker != UNKNOWN_SPEAKER for place in places.values()):
        raise UserError(
            f"{root} tells no speakers: labels_consensus.csv (SpkrID) and Speaker_ids.txt are missing or empty; "
            "without them nothing can keep a speaker out of two splits."
        )
    corpus.choices["speakers_and_partitions"] = ", ".join(sources)
    return places


def _account_for_the_rest(corpus: Corpus, voted, place_of: dict[str, Place], audio: dict[str, Path]) -> None:
    for id, place in place_of.items():
        if id not in voted:
            known = f"turn without votes in {place.partition}" if place.partition else "turn without votes"
            corpus.drop(known, id)
    for path in audio.values():
        if path.stem.upper() not in voted and path.stem.upper() not in place_of:
            corpus.drop("clip on disk in no table", path.stem)
    unknown = sum(clip.speaker == UNKNOWN_SPEAKER for clip in corpus.clips)
    if unknown:
        corpus.notes.append(
            f"The speaker of {unknown:,} turns is unknown, and each may be anybody's: the official split has them in "
            "train only, splits drawn by speaker leave them out."
        )
    silent = sum(not clip.transcript for clip in corpus.clips)
    if silent:
        corpus.notes.append(f"{silent:,} turns have no transcript.")


def _needed(folder: Path, *names: str) -> Path:
    path = find(folder, *names)
    if path is None:
        raise UserError(f"{folder} is not MSP-Podcast as released: it has none of {', '.join(names)}.")
    return path
