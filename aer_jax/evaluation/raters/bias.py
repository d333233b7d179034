"""Label bias of synthetic listeners, in all and by group of speakers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aer_jax.errors import UserError, nearest
from aer_jax.evaluation.intervals import difference_interval, speaker_intervals
from aer_jax.evaluation.metrics import js_divergence

SPEAKER = "speaker"  # groups of one, where a corpus says nothing about its speakers


def by_class(
    human_nk: np.ndarray, synthetic_nk: np.ndarray, speakers_n: np.ndarray, classes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """Mean share of each label: human, synthetic, bias = synthetic - human, and its interval over speakers."""
    bias_nk = synthetic_nk - human_nk
    ci = speaker_intervals({name: bias_nk[:, k] for k, name in enumerate(classes)}, speakers_n)
    return {
        name: {
            "human": float(human_nk[:, k].mean()),
            "synthetic": float(synthetic_nk[:, k].mean()),
            "bias": float(bias_nk[:, k].mean()),
            "ci": ci[name],
        }
        for k, name in enumerate(classes)
    }


def group_of(
    speakers: Mapping[str, Mapping[str, str]], speakers_n: np.ndarray, attribute: str | None
) -> tuple[str, np.ndarray]:
    """The name of the grouping and the group of each utterance.

    Args:
        speakers: speaker -> attribute -> value, as the corpus says.
        speakers_n: the speaker of each utterance.
        attribute: which one; None takes the first that tells speakers apart, else each speaker for itself.

    Raises:
        UserError: the corpus does not say that of these speakers.
    """
    here = sorted(set(speakers_n.tolist()))
    known = list(dict.fromkeys(name for speaker in here for name in speakers.get(speaker, {})))
    if attribute is None:
        telling = [name for name in known if len({speakers.get(s, {}).get(name) for s in here}) > 1]
        attribute = telling[0] if telling else SPEAKER
    if attribute == SPEAKER:
        return SPEAKER, speakers_n
    if attribute not in known:
        raise UserError(
            f'--group: nothing is known of the speakers\' "{attribute}".{nearest(attribute, known)} '
            f"Known: {', '.join([*known, SPEAKER])}."
        )
    return attribute, np.array([speakers.get(speaker, {}).get(attribute, "unknown") for speaker in speakers_n])


def by_group(
    human_nk: np.ndarray,
    synthetic_nk: np.ndarray,
    speakers_n: np.ndarray,
    groups_n: np.ndarray,
    classes: tuple[str, ...],
) -> dict[str, dict[str, Any]]:
    """The bias in each group of speakers, and how it differs from that of all others.

    Returns:
        group -> n, n_speakers, js and its ci, bias {class: synthetic - human} and its ci, gap {class: bias here - bias
        elsewhere} and its ci. Intervals are over speakers, None where there are too few.
    """
    bias_nk, js_n = synthetic_nk - human_nk, js_divergence(human_nk, synthetic_nk)
    rows = {}
    for group in sorted(set(groups_n.tolist())):
        here = groups_n == group
        speakers = np.unique(speakers_n[here])
        named = {name: bias_nk[here, k] for k, name in enumerate(classes)}
        ci = speaker_intervals({"js": js_n[here]} | named, speakers_n[here])
        row = {
            "n": int(here.sum()),
            "n_speakers": len(speakers),
            "js": float(js_n[here].mean()),
            "js_ci": ci["js"],
            "bias": {name: float(values.mean()) for name, values in named.items()},
            "ci": {name: ci[name] for name in classes},
        }
        if not here.all():
            gap_k = bias_nk[here].mean(axis=0) - bias_nk[~here].mean(axis=0)
            row["gap"] = dict(zip(classes, map(float, gap_k), strict=True))
            row["gap_ci"] = {
                name: difference_interval(bias_nk[:, k], here, speakers_n) for k, name in enumerate(classes)
            }
        rows[group] = row
    return rows
