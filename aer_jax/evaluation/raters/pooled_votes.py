"""Held-out loss of pooled human and synthetic votes, on speakers not used for the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.evaluation.intervals import speaker_intervals
from aer_jax.evaluation.raters.aligned_votes import AlignedVotes
from aer_jax.labels.pooling import held_out_loss, learn_weight
from aer_jax.labels.votes import normalise

FIXED = 0.5


def pooling(aligned: AlignedVotes, dataset: Dataset) -> dict[str, Any]:
    """Pooling methods, each scored by `held_out_loss` on the speakers outside the validation split.

    Returns:
        reason: why there is nothing to say, or None; learned_on and n, utterances that weights are learned from and
        scored on; rows: name -> weight (None: synthetic votes alone), loss and ci, better (loss of human votes alone
        minus this one, above 0 is better) and better_ci. `constant` is the control: as many votes of the mean human
        distribution instead of synthetic ones, which only smooth.
    """
    usable_n = aligned.whole_nk.sum(axis=1) >= 2
    validation = set(dataset.splits["validation"])
    learn_n = usable_n & np.array([id in validation for id in aligned.ids])
    score_n = usable_n & ~learn_n
    if not learn_n.any() or not score_n.any():
        missing = "validation speakers" if not learn_n.any() else "speakers outside the validation split"
        return {"reason": f"the journal has no clip of {missing} with two human votes", "rows": {}}
    human_nk = aligned.whole_nk.astype(float)
    synthetic_nk = aligned.votes_nlk.sum(axis=1)
    constant_nk = normalise(human_nk[learn_n]).mean(axis=0) * synthetic_nk.sum(axis=1, keepdims=True)

    def learned(counts_nk: np.ndarray) -> float:
        return learn_weight(human_nk[learn_n], counts_nk[learn_n])

    ways = {
        "human": (synthetic_nk, 0.0),
        "synthetic": (synthetic_nk, np.inf),
        "counts": (synthetic_nk, 1.0),
        "fixed": (synthetic_nk, FIXED),
        "learned": (synthetic_nk, learned(synthetic_nk)),
        "constant": (constant_nk, learned(constant_nk)),
    }
    losses = {
        name: held_out_loss(human_nk[score_n], counts_nk[score_n], weight)[0]
        for name, (counts_nk, weight) in ways.items()
    }
    better = {name: losses["human"] - loss_n for name, loss_n in losses.items()}
    speakers_n = aligned.speakers_n[score_n]
    ci, better_ci = speaker_intervals(losses, speakers_n), speaker_intervals(better, speakers_n)
    rows = {
        name: {
            "weight": None if np.isinf(weight) else weight,
            "loss": float(losses[name].mean()),
            "ci": ci[name],
            "better": float(better[name].mean()),
            "better_ci": better_ci[name],
        }
        for name, (_, weight) in ways.items()
    }
    return {"reason": None, "learned_on": int(learn_n.sum()), "n": int(score_n.sum()), "rows": rows}
