"""Agreement with human raters by persona, temperature and listener."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from aer_jax.evaluation.intervals import sums_interval
from aer_jax.evaluation.metrics import bhattacharyya, js_divergence
from aer_jax.evaluation.raters.aligned_votes import AlignedVotes
from aer_jax.evaluation.raters.reliability import ALPHA, alpha, pair_terms
from aer_jax.labels.votes import normalise

LEVELS = 6  # more temperatures than these are put into bins of BIN
BIN = 0.2


def by_factor(aligned: AlignedVotes) -> dict[str, Any]:
    """Rows by persona, by temperature and by listener.

    JS falls with the number of votes, so rows of unequal `votes` compare by `alpha`, between one vote of a person and
    one of the row, which does not.

    Returns:
        crossed: every persona occurs with every temperature, so that the effect of one is not that of the other;
        by_persona, by_temperature, by_listener: lists of rows with listeners, n (utterances), votes per utterance,
        unparsed_share, failed_share, js, bc, alpha, alpha_ci, labels (shares of the votes).
    """
    personas = [person.persona for person in aligned.listeners]
    temperatures = _temperatures([person.temperature for person in aligned.listeners])
    pairs = set(zip(personas, temperatures, strict=True))
    return {
        "crossed": len(pairs) == len(set(personas)) * len(set(temperatures)),
        "by_persona": _rows(aligned, "persona", personas),
        "by_temperature": _rows(aligned, "temperature", temperatures, in_order=True),
        "by_listener": [
            {"listener": person.listener, "persona": person.persona, "temperature": person.temperature}
            | _row(aligned, [i])
            for i, person in enumerate(aligned.listeners)
        ],
    }


def shares(outcomes: Counter) -> dict[str, Any]:
    """`asked`, the number of questions, and the shares of unparsed and failed ones."""
    asked = outcomes.total()
    return {"asked": asked, **{f"{how}_share": outcomes[how] / asked for how in ("unparsed", "failed")}}


def _temperatures(values: list[float]) -> list[Any]:
    if len(set(values)) <= LEVELS:
        return list(values)
    floors = [int(value / BIN + 1e-9) * BIN for value in values]
    return [f"{low:.1f} to {low + BIN:.1f}" for low in floors]


def _rows(aligned: AlignedVotes, name: str, levels: list[Any], in_order: bool = False) -> list[dict[str, Any]]:
    different = list(dict.fromkeys(levels))
    different = sorted(different) if in_order else different
    return [
        {name: level} | _row(aligned, [i for i, other in enumerate(levels) if other == level]) for level in different
    ]


def _row(aligned: AlignedVotes, listeners: list[int]) -> dict[str, Any]:
    sums_nk = aligned.votes_nlk[:, listeners].sum(axis=1)
    here = sums_nk.sum(axis=1) > 0
    row = {"listeners": len(listeners), "n": int(here.sum()), "votes": float(sums_nk.sum() / max(here.sum(), 1))}
    row |= shares(sum((aligned.outcomes[i] for i in listeners), Counter()))
    if not here.any():
        return row | dict.fromkeys(("js", "bc", "alpha", "alpha_ci")) | {"labels": {}}
    human_nk, synthetic_nk = aligned.human_nk[here], normalise(sums_nk[here])
    terms_nm = pair_terms(human_nk, synthetic_nk)
    value = alpha(terms_nm.sum(axis=0, keepdims=True))[0]
    return row | {
        "js": float(js_divergence(human_nk, synthetic_nk).mean()),
        "bc": float(bhattacharyya(human_nk, synthetic_nk).mean()),
        "alpha": float(value) if np.isfinite(value) else None,
        "alpha_ci": sums_interval(terms_nm, aligned.speakers_n[here], alpha, ALPHA),
        "labels": dict(zip(aligned.classes, map(float, sums_nk.sum(axis=0) / sums_nk.sum()), strict=True)),
    }
