"""Result of a corpus reader: clips with votes, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

# A clip of this speaker may be anybody's; splits by speaker leave it out.
UNKNOWN_SPEAKER = "Unknown"
UNREADABLE = "cannot be read, skipped by --lenient"


class Waveform(NamedTuple):
    """Mono audio: float32 [samples] in [-1, 1], and its rate in Hz."""

    samples: np.ndarray
    rate: int


@dataclass(frozen=True)
class Clip:
    """One utterance as its corpus gives it.

    Attributes:
        id: unique in the corpus.
        speaker: unique in the corpus, or `UNKNOWN_SPEAKER`; splits never divide a speaker.
        audio: a file, or the waveform itself where the corpus is generated.
        votes: all votes, also those for labels that a dataset may leave out.
        transcript: the words, or "" where unknown.
        split: the corpus' own partition, "train", "validation", "test", "test1" or "test2"; None where it has none.
        session: the recording session, or "" where there is none.
        start, end: seconds in `audio` between which the clip lies; None is the recording's own start or end.
        where: file and line that describe it, for messages; "" where there is none.
    """

    id: str
    speaker: str
    audio: Path | Waveform
    votes: tuple[Vote, ...]
    transcript: str = ""
    split: str | None = None
    session: str = ""
    start: float | None = None
    end: float | None = None
    where: str = field(default="", compare=False)

    @property
    def is_segment(self) -> bool:
        """Whether it is a part of its recording."""
        return self.start is not None or self.end is not None

    @property
    def speaker_unknown(self) -> bool:
        """Whether the speaker is unknown."""
        return self.speaker.casefold() == UNKNOWN_SPEAKER.casefold()


@dataclass
class Corpus:
    """A corpus on disk, read.

    Attributes:
        name: the reader's name, as in `--corpus`.
        labels: every label that its votes may use.
        classes: the classes taken when the user names none.
        clips: the usable clips, in a fixed order.
        licensed: True where the licence forbids passing audio or text on.
        dropped: reason -> ids or rows left out; the data report lists them.
        choices: the reader's choices by name; the dataset records them.
        speakers: speaker -> what the corpus says of them, for instance {"sex": "female"}.
        notes: sentences that the data report must say about this corpus.
        lenient: unreadable lines are dropped and counted, not refused.
    """

    name: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    clips: list[Clip]
    licensed: bool = False
    dropped: dict[str, list[str]] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    speakers: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lenient: bool = False

    def drop(self, reason: str, what: str) -> None:
        """Record one clip or row that is left out."""
        self.dropped.setdefault(reason, []).append(what)

    @contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Around the reading of one line or record: a UserError ends everything, or, lenient, drops `where`."""
        try:
            yield
        except UserError as error:
            if not self.lenient:
                raise UserError(f"{error} (`--lenient` skips and counts what cannot be read.)") from None
            self.drop(UNREADABLE, where)

    def labels_voted_for(self) -> tuple[str, ...]:
        """Labels of votes with a weight, sorted."""
        return tuple(sorted({vote.label for clip in self.clips for vote in clip.votes}))
