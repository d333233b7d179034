"""What every corpus reader returns: clips with votes, and an account of what was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aer_jax.labels.votes import Vote


class Waveform(NamedTuple):
    """Mono audio: float32 [samples] in [-1, 1], and its rate in Hz."""

    samples: np.ndarray
    rate: int


@dataclass(frozen=True)
class Clip:
    """One utterance as its corpus gives it.

    Attributes:
        id: unique in the corpus.
        speaker: unique in the corpus; splits never divide a speaker.
        audio: a file, or the waveform itself where the corpus is generated.
        votes: all votes, also those for labels that a dataset may leave out.
        transcript: the words, or "" where unknown.
        split: "train", "validation" or "test" where the corpus says so, else None.
    """

    id: str
    speaker: str
    audio: Path | Waveform
    votes: tuple[Vote, ...]
    transcript: str = ""
    split: str | None = None


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
    """

    name: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    clips: list[Clip]
    licensed: bool = False
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, what: str) -> None:
        """Account for one clip or row that is left out."""
        self.dropped.setdefault(reason, []).append(what)

    def label_counts(self) -> Counter[str]:
        """Weighted votes by label over all clips."""
        counts: Counter[str] = Counter()
        for clip in self.clips:
            for vote in clip.votes:
                counts[vote.label] += vote.weight
        return counts
