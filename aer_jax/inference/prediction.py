"""Prediction of one recording: shares of listeners by class, their intervals, and the windows of a long one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aer_jax.inference.prediction_intervals import LEVEL


@dataclass(frozen=True)
class Window:
    """A part of a long recording, `start` to `end` in seconds; `probs` and `ambiguity` are None if it is silent."""

    start: float
    end: float
    probs: dict[str, float] | None
    ambiguity: float | None

    def to_json(self) -> dict[str, Any]:
        """Shares to 6 digits."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "probs": self.probs and {name: round(p, 6) for name, p in self.probs.items()},
            "ambiguity": None if self.ambiguity is None else round(self.ambiguity, 6),
        }


@dataclass(frozen=True)
class Prediction:
    """The predicted distribution of listeners' votes for one recording.

    Attributes:
        file: its name.
        seconds: its length.
        probs: the share of listeners by class; of a long recording the mean over its windows that are not silent.
        ambiguity: entropy of `probs` over log K, from 0 (all agree) to 1 (every class alike).
        interval: lowest and highest share by class, see `PredictionIntervals`; None where the run has none, and for a
            recording in windows, since they are about whole clips.
        timeline: the windows, in order; empty for a recording that was predicted as a whole.
    """

    file: str
    seconds: float
    probs: dict[str, float]
    ambiguity: float
    interval: dict[str, tuple[float, float]] | None = None
    timeline: list[Window] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The class of the largest share."""
        return max(self.probs, key=self.probs.__getitem__)

    @property
    def whole(self) -> Window:
        """The recording as one window."""
        return Window(0.0, self.seconds, self.probs, self.ambiguity)

    def to_json(self) -> dict[str, Any]:
        """What `aer-jax predict --json` prints; what is not known is left out."""
        whole = self.whole.to_json()
        line = {"file": self.file, "seconds": whole["end"], "probs": whole["probs"], "ambiguity": whole["ambiguity"]}
        if self.interval:
            line["interval"] = {name: [round(p, 4) for p in ends] for name, ends in self.interval.items()}
            line["interval_level"] = LEVEL
        if self.timeline:
            line["timeline"] = [window.to_json() for window in self.timeline]
        return line
