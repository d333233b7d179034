"""Prediction intervals: how far listeners' shares may lie from the predicted ones, by split conformal prediction.

The score of a validation clip and a class is |q - p| / (sqrt(p (1 - p)) + FLOOR), q the share of its human votes, p
the predicted one; the interval of a new clip reaches as far as the score that LEVEL of the validation clips stay below
(locally weighted split conformal: Lei et al., JASA 2018, section 5.2). Were new clips drawn like the validation clips,
each class's interval would hold the share of such votes in at least LEVEL of them. They are of other speakers, and the
epoch was chosen on these clips: so this is what validation speakers showed, not a guarantee about others. What share of
the test clips lay within is in metrics.json, under "band".
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.files.atomic import replace_text
from aer_jax.files.content_hash import folder_digest, is_intact, seal
from aer_jax.files.json_text import parse_json

LEVEL = 0.9
# A share that is predicted to be almost 0 or 1 is not known without error: about the step of one vote of ten.
FLOOR = 0.1
FILE = "band.json"


@dataclasses.dataclass(frozen=True)
class PredictionIntervals:
    """The intervals of one checkpoint.

    Attributes:
        step: the checkpoint that it was fitted for.
        level: the share of validation clips whose votes lie within, class by class.
        reach: score by class; at most `1 / FLOOR`, where every interval is 0 to 1.
        n: validation clips.
        n_speakers: their speakers.
    """

    step: int
    level: float
    reach: dict[str, float]
    n: int
    n_speakers: int

    @property
    def are_trivial(self) -> bool:
        """Whether the validation clips were too few, so that each interval is 0 to 1."""
        return math.ceil((self.n + 1) * self.level) > self.n

    def around(self, probs_nk: np.ndarray) -> np.ndarray:
        """Lowest and highest share of each class: [N, K] -> [N, K, 2] within [0, 1]."""
        far_nk = np.array(list(self.reach.values())) * _scale(probs_nk)
        return np.clip(np.stack([probs_nk - far_nk, probs_nk + far_nk], axis=-1), 0.0, 1.0)

    def coverage(self, references_nk: np.ndarray, probs_nk: np.ndarray) -> dict[str, Any]:
        """On other clips: the share of references within the intervals and their mean width, by class."""
        low_nk, high_nk = np.moveaxis(self.around(probs_nk), -1, 0)
        inside_nk = (low_nk - 1e-9 <= references_nk) & (references_nk <= high_nk + 1e-9)
        width_nk = high_nk - low_nk
        return {
            "level": self.level,
            "coverage": float(inside_nk.mean()),
            "width": float(width_nk.mean()),
            "by_class": {
                name: {"coverage": float(inside), "width": float(width)}
                for name, inside, width in zip(self.reach, inside_nk.mean(axis=0), width_nk.mean(axis=0), strict=True)
            },
            "fitted_on": f"{self.n} validation clips of {self.n_speakers} speakers",
        }


def fit(
    references_nk: np.ndarray, probs_nk: np.ndarray, speakers: Sequence[str], classes: Sequence[str], step: int
) -> PredictionIntervals:
    """Fit them to validation predictions and the human shares of the same clips."""
    scores_nk = np.abs(references_nk - probs_nk) / _scale(probs_nk)
    n = len(scores_nk)
    rank = math.ceil((n + 1) * LEVEL)  # of n + 1: the new clip is one more; beyond n nothing is known
    reach_k = np.sort(scores_nk, axis=0)[rank - 1] if rank <= n else np.full(len(classes), 1 / FLOOR)
    return PredictionIntervals(step, LEVEL, dict(zip(classes, map(float, reach_k), strict=True)), n, len(set(speakers)))


def save(intervals: PredictionIntervals, run: Path) -> None:
    """Write them to the run's band.json."""
    stored = seal(dataclasses.asdict(intervals) | {"checkpoint": _checkpoint(run, intervals.step)})
    replace_text(run / FILE, json.dumps(stored, indent=2) + "\n")


def load(run: Path, step: int | None, classes: Sequence[str]) -> PredictionIntervals | None:
    """The run's intervals; None where it has none, damaged ones, or those of another checkpoint."""
    try:
        stored = parse_json((run / FILE).read_bytes())
        # Older versions kept neither a digest nor the checkpoint's.
        known = is_intact(stored)
        if known is False or (known and stored["checkpoint"] != _checkpoint(run, step)):
            return None
        names = [field.name for field in dataclasses.fields(PredictionIntervals)]
        intervals = PredictionIntervals(**{name: stored[name] for name in names})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return intervals if intervals.step == step and list(intervals.reach) == list(classes) else None


def _scale(probs_nk: np.ndarray) -> np.ndarray:
    return np.sqrt(np.clip(probs_nk * (1 - probs_nk), 0, None)) + FLOOR


def _checkpoint(run: Path, step: int | None) -> str | None:
    folder = run / "best" / str(step)
    return folder_digest(folder) if folder.is_dir() else None
