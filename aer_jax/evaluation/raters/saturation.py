"""Saturation: JS by number of synthetic listeners, and its extrapolation to infinitely many.

The law is a + b / N: the bias of a divergence between a fixed distribution and the mean of N votes falls as 1 / N where
every label has some share (delta method; Miller, 1955, for entropy). The paper's a - b exp(-c N) (arXiv 2601.14620) is
not fitted: on votes of a known law it saturates at 5 to 7 votes whatever the law.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aer_jax.evaluation.intervals import interval, leave_one_out, speaker_intervals
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.labels.votes import normalise

ORDERS = 20  # random orders of the votes about each utterance
GAIN = 0.9
FROM = 3  # the law a + b / N holds for large N; one and two votes are left out of its fit
COVERED = 0.5  # of the utterances must have as many votes as the curve is long


def js_by_number(
    human_nk: np.ndarray, votes_nlk: np.ndarray, orders: int = ORDERS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """JS of the first 1..M votes in random order, M such that at least half of the utterances have M votes.

    Each order is drawn for each utterance by itself, among the votes that it has, so that missing votes shorten no
    other utterance's curve; in expectation that equals drawing one subset of listeners for all.

    Returns:
        (used_n, js_um): bool [N], the utterances with at least M votes, and their JS [U, M], mean over the orders.
    """
    votes_n = (votes_nlk.sum(axis=2) > 0).sum(axis=1)
    most = int(np.sort(votes_n)[int(np.floor((1 - COVERED) * (len(votes_n) - 1)))])
    used_n = votes_n >= most
    votes_ulk, human_uk = votes_nlk[used_n], human_nk[used_n]
    missing_ul = votes_ulk.sum(axis=2) == 0
    rng = np.random.default_rng(seed)
    js_um = np.zeros((used_n.sum(), most))
    for _ in range(orders):
        # Missing votes sort behind all others.
        order_um = np.argsort(rng.random(missing_ul.shape) + missing_ul, axis=1)[:, :most]
        sums_umk = np.cumsum(np.take_along_axis(votes_ulk, order_um[:, :, None], axis=1), axis=1)
        js_um += js_divergence(human_uk[:, None], normalise(sums_umk)) / orders
    return used_n, js_um


def fit_inverse(js_m: np.ndarray) -> dict[str, Any] | None:
    """a + b / N by least squares over N >= FROM, {a, b, rmse, n_gain}; None where these are fewer than three.

    n_gain is the N at which GAIN of the way from the measured js(1) to a is reached, b / N = (1 - GAIN) (js(1) - a); it
    may lie beyond the N that were measured, None where JS does not fall.
    """
    n_m = np.arange(FROM, len(js_m) + 1)
    if len(n_m) < 3:
        return None
    terms_m2 = np.column_stack([np.ones(len(n_m)), 1 / n_m])
    (a, b), *_ = np.linalg.lstsq(terms_m2, js_m[FROM - 1 :], rcond=None)
    rmse = np.sqrt(np.mean((terms_m2 @ (a, b) - js_m[FROM - 1 :]) ** 2))
    n_gain = float(b / ((1 - GAIN) * (js_m[0] - a))) if js_m[0] > a and b > 0 else None
    return {"a": float(a), "b": float(b), "rmse": float(rmse), "n_gain": n_gain}


def saturation(
    human_nk: np.ndarray,
    votes_nlk: np.ndarray,
    speakers_n: np.ndarray,
    exact_nk: np.ndarray | None = None,
) -> dict[str, Any]:
    """The curve with intervals over speakers, the fitted law, and the number that reaches 90% of the gain.

    Args:
        human_nk: the references.
        votes_nlk: synthetic votes, zero where a listener gave none.
        speakers_n: the speaker of each utterance.
        exact_nk: the exact proxy's distributions, NaN rows where unknown; what infinitely many votes would give.

    Returns:
        n_utterances; js and ci, lists over N = 1..M; inverse {a, b, rmse, n_gain, ci {a}} or None; exact {js, ci,
        n_gain, missing} or None, its n_gain None where M votes do not reach it.
    """
    used_n, js_um = js_by_number(human_nk, votes_nlk)
    speakers_u, js_m = speakers_n[used_n], js_um.mean(axis=0)
    ci = speaker_intervals({str(m): js_um[:, m] for m in range(js_um.shape[1])}, speakers_u)
    speaker_u, times_rs, size_s = leave_one_out(speakers_u)
    sums_sm = np.zeros((len(size_s), js_um.shape[1]))
    np.add.at(sums_sm, speaker_u, js_um)
    # Without each speaker in turn; a single speaker leaves nothing.
    curves = (times_rs[1:] @ sums_sm) / np.maximum(times_rs[1:] @ size_s, 1)[:, None]
    inverse = fit_inverse(js_m)
    inverses = [fit["a"] if fit else np.nan for fit in map(fit_inverse, curves)]
    return {
        "n_utterances": int(used_n.sum()),
        "orders": ORDERS,
        "js": js_m.tolist(),
        "ci": [ci[str(m)] for m in range(len(js_m))],
        "inverse": inverse and inverse | {"ci": {"a": interval(inverse["a"], np.array(inverses), size_s)}},
        "exact": None if exact_nk is None else _exact(human_nk[used_n], exact_nk[used_n], speakers_u, js_m),
    }


def reached(js_m: np.ndarray, limit: float) -> float | None:
    """The number N at which a share GAIN of the way from js(1) to `limit` is reached, interpolated linearly."""
    target = js_m[0] - GAIN * (js_m[0] - limit)
    below = np.flatnonzero(js_m <= target)
    if limit >= js_m[0] or not len(below):
        return None
    after = below[0]
    return float(after + (js_m[after - 1] - target) / (js_m[after - 1] - js_m[after]))


def _exact(human_uk: np.ndarray, exact_uk: np.ndarray, speakers_u: np.ndarray, js_m: np.ndarray) -> dict | None:
    here = np.isfinite(exact_uk).all(axis=1)
    if not here.all():  # another set of utterances has another limit
        return {"js": None, "ci": None, "n_gain": None, "missing": int((~here).sum())}
    js_u = js_divergence(human_uk, exact_uk)
    js = float(js_u.mean())
    return {
        "js": js,
        "ci": speaker_intervals({"js": js_u}, speakers_u)["js"],
        "n_gain": reached(js_m, js),
        "missing": 0,
    }
