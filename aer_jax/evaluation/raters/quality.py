"""Quality report of a journal of synthetic votes, as `aer-jax proxies` prints it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.intervals import LEVEL, METHOD
from aer_jax.evaluation.metrics import DEFINITIONS, DIVERGENCES
from aer_jax.evaluation.raters import agreement, bias
from aer_jax.evaluation.raters.aligned_votes import AlignedVotes, align_votes
from aer_jax.evaluation.raters.factors import by_factor, shares
from aer_jax.evaluation.raters.pooled_votes import pooling
from aer_jax.evaluation.raters.reliability import alphas
from aer_jax.evaluation.raters.saturation import saturation
from aer_jax.files.atomic import plain


def quality(dataset: Dataset, journal: Path, exact: Path | None = None, group: str | None = None) -> dict[str, Any]:
    """How good a journal's votes are, on all utterances with human and synthetic votes.

    Args:
        dataset: what was annotated.
        journal: synthetic votes.
        exact: a journal of the same model by the exact engine: what infinitely many votes would give.
        group: which attribute of the speakers to look at, "speaker" for each by itself; None as `bias.group_of`.

    Returns:
        JSON-able. model, prompt, answers; utterances, speakers, listeners, votes (an utterance, human and synthetic);
        asked, unparsed_share, failed_share; a row of `agreement.against` (js, js_distance, bc, correlation, ci);
        js_shuffled, p_shuffled; baselines; alpha; by_ambiguity; crossed, by_persona, by_temperature, by_listener;
        by_class; groups; saturation; pooling; exact; definitions.

    Raises:
        UserError: a journal is unusable, see `align_votes`, or is of another model than the exact one.
    """
    aligned = align_votes(dataset, journal)
    classes, speakers_n = aligned.classes, aligned.speakers_n
    human_nk, synthetic_nk = aligned.human_nk, aligned.synthetic_nk
    shuffled = agreement.shuffled_agreement(human_nk, synthetic_nk)
    attribute, groups_n = bias.group_of(dataset.speakers, speakers_n, group)
    exact_nk, limit = _exact(dataset, aligned, exact) if exact else (None, None)
    result = {
        "model": aligned.origin[0],
        "prompt": aligned.origin[1],
        "answers": aligned.answers,
        "dataset": dataset.name,
        "classes": list(classes),
        "references": "human",
        "utterances": len(aligned.ids),
        "speakers": len(np.unique(speakers_n)),
        "listeners": len(aligned.listeners),
        "votes": {
            "human": float(aligned.counts_nk.sum(axis=1).mean()),
            "synthetic": float(aligned.votes_nlk.sum(axis=(1, 2)).mean()),
        },
        **shares(sum(aligned.outcomes, Counter())),
        **agreement.against(human_nk, synthetic_nk, speakers_n, classes),
        "js_shuffled": shuffled.js_shuffled,
        "p_shuffled": shuffled.p,
        "baselines": agreement.baselines(human_nk, aligned.whole_nk, speakers_n, classes),
        "alpha": alphas(aligned.whole_nk, aligned.votes_nlk, speakers_n),
        "by_ambiguity": agreement.by_ambiguity(human_nk, synthetic_nk, aligned.whole_nk, speakers_n),
        **by_factor(aligned),
        "by_class": bias.by_class(human_nk, synthetic_nk, speakers_n, classes),
        "groups": {
            "attribute": attribute,
            "rows": bias.by_group(human_nk, synthetic_nk, speakers_n, groups_n, classes),
        },
        "saturation": saturation(human_nk, aligned.votes_nlk, speakers_n, exact_nk),
        "pooling": pooling(aligned, dataset),
        "exact": limit,
        "intervals": {"level": LEVEL, "over": "speakers", "method": METHOD},
        "definitions": {name: DEFINITIONS[name] for name in (*DIVERGENCES, "ambiguity")},
    }
    return plain(result)


def _exact(dataset: Dataset, aligned: AlignedVotes, journal: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The exact proxy's distributions in the order of the aligned votes, NaN where it has none, and its row."""
    other = align_votes(dataset, journal)
    if other.answers != "exact":
        raise UserError(
            f"--exact: {journal} holds sampled votes; `aer-jax annotate --engine exact` writes the other kind."
        )
    if other.origin[0] != aligned.origin[0]:
        raise UserError(f"--exact: {journal} is of the model {other.origin[0]}, the votes are of {aligned.origin[0]}.")
    row = {id: n for n, id in enumerate(other.ids)}
    exact_nk = np.full(aligned.human_nk.shape, np.nan)
    for n, id in enumerate(aligned.ids):
        if id in row:
            exact_nk[n] = other.synthetic_nk[row[id]]
    here = np.isfinite(exact_nk).all(axis=1)
    if not here.any():
        raise UserError(f"--exact: {journal} and the votes have no utterance in common.")
    differs = []
    if other.origin[1] != aligned.origin[1]:
        differs.append("the prompt")
    if _factors(other) != _factors(aligned):
        differs.append("personas or temperatures")
    if "free" in aligned.answers:
        differs.append("free answers (the exact ones are bound to the labels)")
    limit = agreement.against(aligned.human_nk[here], exact_nk[here], aligned.speakers_n[here], aligned.classes)
    return exact_nk, limit | {"differs": differs}


def _factors(aligned: AlignedVotes) -> set[tuple[str, float]]:
    return {(person.persona, person.temperature) for person in aligned.listeners}
