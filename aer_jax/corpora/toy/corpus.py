"""Toy corpus: synthesized speech-like audio with known true distributions.

A sentence is said at a point of a five-dimensional space of manner (pitch, pitch range, energy, rate,
brightness, relative to the speaker). Each emotion has a place in that space, most sentences lie between two
of them, and how likely a listener hears an emotion falls with the distance to its place. So each clip has a
true distribution, a function of how it sounds, that human votes merely sample. The words tell nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.corpora.toy.formants import RATE, Prosody, Voice, speak
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

CLASSES = ("angry", "happy", "neutral", "sad")
# How often each is the main emotion of a sentence; neutral dominates, as in conversation.
PRIOR = (0.11, 0.19, 0.47, 0.23)
# Where each emotion lies: pitch, pitch range, energy, rate, brightness.
PLACES = np.array(
    [
        [0.5, 0.4, 1.7, 0.8, 1.7],
        [1.8, 1.7, 0.5, 0.5, 0.3],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [-0.9, -1.2, -1.2, -1.4, -1.1],
    ]
)
SPREAD = 0.25  # of the manner around the blend, per dimension
TOLERANCE = 1.0  # how far from an emotion's place it is still heard

SENTENCES = (
    ("the boat is on the water", "DH AH B OW1 T IH Z AA N DH AH W AO1 T ER"),
    ("put the bag by the door", "P UH T DH AH B AE1 G B AY DH AH D AO1 R"),
    ("we leave at seven", "W IY L IY1 V AE T S EH1 V AH N"),
    ("she lives near the lake", "SH IY L IH1 V Z N IH R DH AH L EY1 K"),
    ("the train comes at nine", "DH AH T R EY1 N K AH M Z AE T N AY1 N"),
    ("he took the other road", "HH IY T UH1 K DH IY AH DH ER R OW1 D"),
    ("that is the second one", "DH AE T IH Z DH AH S EH1 K AH N D W AH N"),
    ("it is four o'clock", "IH T IH Z F AO1 R AH K L AA1 K"),
    ("the room is down the hall", "DH AH R UW1 M IH Z D AW N DH AH HH AO1 L"),
    ("my sister has the key", "M AY S IH1 S T ER HH AE Z DH AH K IY1"),
)


@dataclass(frozen=True)
class Utterance:
    """One clip before it is synthesized.

    Attributes:
        id: unique over clips and seeds.
        speaker: unique over seeds.
        transcript: the words.
        phones: what the synthesizer says.
        voice: the speaker's voice.
        manner: float64 [5], the point in the space of `PLACES`.
    """

    id: str
    speaker: str
    transcript: str
    phones: tuple[str, ...]
    voice: Voice
    manner: np.ndarray

    @property
    def prosody(self) -> Prosody:
        """The manner in physical units."""
        pitch, movement, energy, rate, brightness = self.manner
        return Prosody(2.2 * pitch, 5.0 * 1.5**movement, 4.0 * energy, 1.2**rate, 0.9 * brightness)

    @property
    def distribution(self) -> np.ndarray:
        """float64 [4] over `CLASSES`: the probability that a listener hears each emotion."""
        distances_k = ((self.manner - PLACES) ** 2).sum(axis=1)
        scores_k = np.exp(-distances_k / (2 * TOLERANCE**2))
        return scores_k / scores_k.sum()


def utterances(clips: int = 240, speakers: int = 20, seed: int = 0) -> list[Utterance]:
    """Utterances before synthesis: the ground truth of `generate` with the same arguments.

    Raises:
        UserError: an argument is below 1.
    """
    for name, value in (("clips", clips), ("speakers", speakers)):
        if value < 1:
            raise UserError(f"the toy corpus needs at least 1 of {name}, not {value}.")
    voices = [_voice(np.random.default_rng((seed, 0, s)), s) for s in range(speakers)]
    utterances = []
    for index in range(clips):
        rng = np.random.default_rng((seed, 1, index))
        main = rng.choice(len(CLASSES), p=PRIOR)
        other = rng.choice([k for k in range(len(CLASSES)) if k != main])
        # From a pure case to a tie of the two, most often near the pure one.
        share = 0.5 * rng.beta(1.0, 1.6)
        blend = (1 - share) * PLACES[main] + share * PLACES[other]
        manner = blend + SPREAD * rng.standard_normal(PLACES.shape[1])
        transcript, phones = SENTENCES[rng.integers(len(SENTENCES))]
        speaker = index % speakers
        utterances.append(
            Utterance(
                id=f"toy{seed}-{index:04d}",
                speaker=f"toy{seed}-speaker{speaker:02d}",
                transcript=transcript,
                phones=tuple(phones.split()),
                voice=voices[speaker],
                manner=manner,
            )
        )
    return utterances


def truth(clips: int = 240, speakers: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """Clip id -> the distribution, float64 [4] over `CLASSES`, from which `generate` draws the votes."""
    return {utterance.id: utterance.distribution for utterance in utterances(clips, speakers, seed)}


def generate(clips: int = 240, speakers: int = 20, raters: int = 5, seed: int = 0) -> Corpus:
    """Synthesize the corpus and let the listeners vote.

    Args:
        clips: how many; the first n clips are the same whatever the number.
        speakers: how many voices; clip i belongs to speaker i mod `speakers`.
        raters: listeners, each of which votes once on every clip.
        seed: other seeds give other voices, sentences, manners and votes.

    Returns:
        the corpus; its audio is in memory, 16 kHz, about 0.8 to 2 s a clip.

    Raises:
        UserError: an argument is below 1.
    """
    if raters < 1:
        raise UserError(f"the toy corpus needs at least 1 of raters, not {raters}.")
    made = []
    for index, utterance in enumerate(utterances(clips, speakers, seed)):
        audio_rng, vote_rng = (np.random.default_rng((seed, part, index)) for part in (2, 3))
        label_indices = vote_rng.choice(len(CLASSES), size=raters, p=utterance.distribution)
        votes = tuple(Vote(utterance.id, CLASSES[k], rater=f"listener{r}") for r, k in enumerate(label_indices))
        samples = speak(utterance.phones, utterance.voice, utterance.prosody, audio_rng)
        made.append(
            Clip(
                id=utterance.id,
                speaker=utterance.speaker,
                audio=Waveform(samples, RATE),
                votes=votes,
                transcript=utterance.transcript,
            )
        )
    voices = {clip.speaker: {"voice": "low" if int(clip.speaker[-2:]) % 2 == 0 else "high"} for clip in made}
    return Corpus(name="toy", labels=CLASSES, classes=CLASSES, clips=made, speakers=voices)


def _voice(rng: np.random.Generator, index: int) -> Voice:
    low = index % 2 == 0
    return Voice(
        pitch=rng.uniform(95, 130) if low else rng.uniform(175, 225),
        tract=rng.uniform(0.95, 1.05) if low else rng.uniform(1.1, 1.22),
        breath=rng.uniform(0.2, 1.0),
        level=rng.uniform(-1.5, 1.5),
    )
