"""Means over utterances with intervals over speakers, of all utterances and of each level of ambiguity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from aer_jax.evaluation.ambiguity import EDGES, NAMES, ambiguity, ambiguity_bins
from aer_jax.evaluation.intervals import UNIT, speaker_intervals


def summary(values: Mapping[str, np.ndarray], speakers_n: np.ndarray) -> dict[str, Any]:
    """n, n_speakers, the mean of each of `values` [N] (NaN without utterances), and `ci`, their intervals."""
    n = len(speakers_n)
    means = {name: float(values_n.mean()) if n else math.nan for name, values_n in values.items()}
    ci = speaker_intervals(dict(values), speakers_n, UNIT)
    return {"n": n, "n_speakers": len(np.unique(speakers_n))} | means | {"ci": ci}


def by_ambiguity(
    values: Mapping[str, np.ndarray], speakers_n: np.ndarray, references_nk: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Level of ambiguity of the references -> `from` and `to`, its edges, and the `summary` of its utterances."""
    bin_n = ambiguity_bins(ambiguity(references_nk))
    return {
        name: {"from": low, "to": high}
        | summary({key: values_n[bin_n == b] for key, values_n in values.items()}, speakers_n[bin_n == b])
        for b, (name, low, high) in enumerate(zip(NAMES, (0.0, *EDGES), (*EDGES, 1.0), strict=True))
    }
