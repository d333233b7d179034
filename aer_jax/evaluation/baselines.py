"""Baselines of every result: predictions without the audio, a linear probe, oracles, and the listeners themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from aer_jax.evaluation.metrics import DIVERGENCES, hard_labels, js_divergence
from aer_jax.labels.votes import normalise

HALVINGS = 20


class Baseline(NamedTuple):
    """How a baseline is called: in a table, inside a sentence, and what it is."""

    label: str
    phrase: str
    note: str


# In the order of every table.
BASELINES = {
    "uniform": Baseline(
        "Uniform",
        "the uniform distribution",
        "the same share for every class; it names no class, so it has no accuracy",
    ),
    "train_mean": Baseline(
        "Training mean", "the training mean", "the mean human distribution of the training split, for every utterance"
    ),
    "linear_probe": Baseline(
        "Linear probe of the frozen encoder",
        "the linear probe",
        "logistic regression on the frozen audio tower, mean and standard deviation over time of all layers, on human "
        "votes: L2 chosen on the validation split, then fitted to both",
    ),
    "best_constant": Baseline(
        "Best constant (oracle)",
        "the best constant",
        "oracle: the one distribution with the lowest mean JS to these very references",
    ),
    "oracle_majority": Baseline(
        "Majority label (oracle)",
        "the majority label",
        "oracle: all mass on each reference's largest class (of tied ones the first; js and bc are the same for each), "
        "what a perfect single label would score",
    ),
    "split_half": Baseline(
        "Half the listeners vs half",
        "one half of the listeners against the other",
        f"each utterance's whole votes cut at random into two halves, one half against the other, mean of {HALVINGS} "
        "seeded cuts; a half has fewer votes than a reference, so this is not a lower bound",
    ),
}


def predictions(
    references_nk: np.ndarray, train_mean_nk: np.ndarray | None = None, probe_nk: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Baseline -> its prediction for each utterance [N, K], of those that predict and are known.

    Args:
        references_nk: what is predicted; the oracles see it.
        train_mean_nk: the training mean of each utterance's split.
        probe_nk: what a linear probe predicts.
    """
    n, k = references_nk.shape
    rows = {
        "uniform": np.full((n, k), 1 / k),
        "train_mean": train_mean_nk,
        "linear_probe": probe_nk,
        "best_constant": np.broadcast_to(best_constant(references_nk), (n, k)),
        "oracle_majority": oracle_majority(references_nk),
    }
    return {name: row for name, row in rows.items() if row is not None}


def best_constant(references_nk: np.ndarray) -> np.ndarray:
    """The distribution [K] that minimises the mean JS to `references_nk`: an oracle, since it sees them.

    JS is convex in its second argument, so the minimum found on softmax parameters is the global one.
    d JS(q, p) / d p = 1/2 log(p / m) with m = (p + q) / 2.
    """
    unique_uk, times_u = np.unique(references_nk, axis=0, return_counts=True)
    weights_u = times_u / times_u.sum()

    def loss(logits_k: np.ndarray) -> tuple[float, np.ndarray]:
        p_k = softmax(logits_k)
        mean = weights_u @ js_divergence(unique_uk, p_k) * np.log(2)
        slope_k = weights_u @ np.log(2 * p_k / (p_k + unique_uk)) / 2
        return mean, p_k * (slope_k - p_k @ slope_k)

    start_k = np.log(np.clip(references_nk.mean(axis=0), 1e-12, None))
    return softmax(minimize(loss, start_k, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10}).x)


def oracle_majority(references_nk: np.ndarray) -> np.ndarray:
    """All mass on the largest class of each reference: [N, K].

    Of tied classes the first is taken; js and bc are the same for each of them.
    """
    return np.eye(references_nk.shape[1])[hard_labels(references_nk, references_nk)[0]]


def halves(counts_uk: np.ndarray, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """HALVINGS random cuts of whole votes into n // 2 and n - n // 2 of them, as distributions [U, K].

    Args:
        counts_uk: two whole votes or more in each row.
    """
    rng = np.random.default_rng(seed)
    for _ in range(HALVINGS if len(counts_uk) else 0):
        half_uk = np.array([rng.multivariate_hypergeometric(row, row.sum() // 2) for row in counts_uk])
        yield normalise(half_uk), normalise(counts_uk - half_uk)


def split_half(whole_nk: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Agreement of the listeners with each other: one half of an utterance's whole votes against the other.

    Args:
        whole_nk: counts of whole votes [N, K].

    Returns:
        js, js_distance and bc of each utterance [N], the mean over the cuts; NaN where there are fewer than two votes.
    """
    counts_nk = whole_nk.astype(np.int64)
    usable_n = counts_nk.sum(axis=1) >= 2
    values = {name: np.where(usable_n, 0.0, np.nan) for name in DIVERGENCES}
    for p_uk, q_uk in halves(counts_nk[usable_n], seed):
        for name, divergence in DIVERGENCES.items():
            values[name][usable_n] += divergence(p_uk, q_uk) / HALVINGS
    return values
