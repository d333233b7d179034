"""Means over utterances with intervals over speakers, of all utterances and of each level of ambiguity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from aer_jax.evaluation.ambiguity import EDGES, NAMES, ambiguity, ambiguity_bins
from aer_jax.evaluation.intervals import UNBOUNDED, UNIT, speaker_intervals


def summary(values: Mapping[str, np.ndarray], speakers_n: np.ndarray) -> dict[str, Any]:
    """n, n_speakers, the mean of each of `values` in [0, 1], and `ci`, their intervals.

    Args:
        values: measures by name, each [N]; utterances without any of them (NaN) are left out.
        speakers_n: the speaker of each utterance.
    """
    present_n = ~np.isnan(list(values.values())).all(axis=0)
    values, speakers_n = {name: values_n[present_n] for name, values_n in values.items()}, speakers_n[present_n]
    n = len(speakers_n)
    means = {name: float(values_n.mean()) if n else math.nan for name, values_n in values.items()}
    ci = speaker_intervals(values, speakers_n, UNIT)
    return {"n": n, "n_speakers": len(np.unique(speakers_n))} | means | {"ci": ci}


def difference(difference_n: np.ndarray, speakers_n: np.ndarray) -> dict[str, Any]:
    """`value`, the mean of paired differences, and `ci`; utterances without one (NaN) are left out."""
    present_n = ~np.isnan(difference_n)
    value = float(difference_n[present_n].mean()) if present_n.any() else math.nan
    ci = speaker_intervals({"value": difference_n[present_n]}, speakers_n[present_n], UNBOUNDED)
    return {"value": value, "ci": ci["value"]}


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
