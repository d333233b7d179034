"""Worth of a proxy in raters: human votes are thinned to a few and scored against those held back.

Of each clip, in each of `DEALS` seeded deals, `held_back` votes at least stay aside as the reference, the same for all
estimates of the clip; the others are dealt out one by one. A few votes are a coarse estimate of a distribution, so
anything smooth helps them, a constant too. They are therefore always smoothed by the mean of the other speakers' votes,
and what a proxy brings is its gain over its own mean in its place, a constant: a proxy that says the same of all clips
brings nothing. It is worth as many raters as would, added to as many votes, bring that gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.ambiguity import NAMES, ambiguity, ambiguity_bins
from aer_jax.evaluation.intervals import speaker_intervals
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.labels.votes import normalise

DEALS = 20
FOLDS = 5  # of speakers; the weights for one fold are chosen on the others
# How many votes the other speakers' mean, and a proxy, count as; 0 leaves it out.
PRIOR_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
PROXY_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
PRIOR = "other speakers' mean"
STEP = 0.05  # of a rater, between the ends of an interval that are tried
NOTHING = 1e-9  # a gain below it is rounding


@dataclass(frozen=True)
class Deals:
    """Votes given and votes held back, drawn repeatedly.

    Attributes:
        ids: the clips that have votes enough [N].
        speakers_n: the speaker of each.
        level_n: index into `ambiguity.NAMES`, from all votes of a clip.
        heard_dmnk: counts of the first m = 1.. votes [D, M, N, K].
        references_dnk: distributions of the votes held back [D, N, K].
    """

    ids: list[str]
    speakers_n: np.ndarray
    level_n: np.ndarray
    heard_dmnk: np.ndarray = field(repr=False)
    references_dnk: np.ndarray = field(repr=False)


def deal(
    dataset: Dataset, raters: int = 5, held_back: int = 4, only: Sequence[str] | None = None, seed: int = 0
) -> Deals:
    """Draw the votes of the clips that have `raters + held_back` whole votes for the classes.

    Args:
        dataset: clips and votes.
        raters: how many votes are dealt out; all others are the reference.
        held_back: the fewest votes of a reference.
        only: clips to take; None is all.
        seed: of the deals.

    Raises:
        UserError: fewer than two speakers have such a clip.
    """
    ids = sorted(dataset.utterances if only is None else set(only) & set(dataset.utterances))
    counts_nk = dataset.votes.human.whole.counts(ids, dataset.classes).astype(int)
    enough_n = counts_nk.sum(axis=1) >= raters + held_back
    ids, counts_nk = [id for id, here in zip(ids, enough_n, strict=True) if here], counts_nk[enough_n]
    speakers_n = np.array([dataset.utterances[id].speaker for id in ids])
    if len(set(speakers_n)) < 2:
        raise UserError(
            f"{len(ids)} clips of {len(set(speakers_n))} speaker(s) have {raters + held_back} whole votes or more; the "
            "study needs them of two speakers at least. Choose fewer raters, or a corpus with more votes per clip."
        )
    classes, most = counts_nk.shape[1], counts_nk.sum(axis=1).max()
    label_nv = np.full((len(ids), most), -1)
    for row_v, count_k in zip(label_nv, counts_nk, strict=True):
        row_v[: count_k.sum()] = np.repeat(np.arange(classes), count_k)
    rng = np.random.default_rng(seed)
    drawn, references = [], []
    for _ in range(DEALS):
        # Places without a vote sort behind all votes.
        order_nv = np.argsort(rng.random(label_nv.shape) + (label_nv < 0), axis=1)
        first_nm = np.take_along_axis(label_nv, order_nv, axis=1)[:, :raters]
        drawn.append(np.eye(classes, dtype=np.int16)[first_nm].cumsum(axis=1).swapaxes(0, 1))
        references.append(normalise(counts_nk - drawn[-1][-1]))
    level_n = ambiguity_bins(ambiguity(normalise(counts_nk)))
    return Deals(ids, speakers_n, level_n, np.array(drawn), np.array(references))


def estimates(
    deals: Deals, proxies: Mapping[str, np.ndarray], seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """JS to the votes held back, of each clip, the mean over the deals.

    Args:
        deals: the votes.
        proxies: name -> distributions [N, K] of the clips, each made without the votes of the clip's speaker.
        seed: of the folds of speakers.

    Returns:
        (js, js_constant). In `js`, "votes" [M, N]: m human votes alone; PRIOR [M + 1, N]: m = 0.. human votes smoothed;
        each proxy [M + 1, N]: the same pooled with it. `js_constant`: each proxy's mean over other speakers' clips in
        its place. The weights are chosen, for each m, on the other speakers.
    """
    fold_n = _folds(deals.speakers_n, seed)
    prior_nk = _mean_of_others(deals.references_dnk.mean(axis=0), fold_n)
    raters = deals.heard_dmnk.shape[1]
    counts = [np.zeros((1, *prior_nk.shape)), *(deals.heard_dmnk[:, m] for m in range(raters))]

    def best(counts_dnk: np.ndarray, proxy_nk: np.ndarray, weights: Sequence[float]) -> np.ndarray:
        grid = [(v, w) for v in PRIOR_WEIGHTS for w in weights if v + w > 0 or counts_dnk.any()]
        tried = [_js(deals, normalise(counts_dnk + v * prior_nk + w * proxy_nk)) for v, w in grid]
        return _cross_fitted(np.array(tried), fold_n)

    def pooled_with(proxy_nk: np.ndarray) -> np.ndarray:
        return np.array([best(counts_dnk, proxy_nk, PROXY_WEIGHTS) for counts_dnk in counts])

    js = {"votes": np.array([_js(deals, normalise(counts_dnk)) for counts_dnk in counts[1:]])}
    js[PRIOR] = np.array([best(counts_dnk, prior_nk, (0.0,)) for counts_dnk in counts])
    js |= {name: pooled_with(proxy_nk) for name, proxy_nk in proxies.items()}
    return js, {name: pooled_with(_mean_of_others(proxy_nk, fold_n)) for name, proxy_nk in proxies.items()}


def worth(
    prior_mn: np.ndarray, constant_mn: np.ndarray, proxy_mn: np.ndarray, speakers_n: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Number of raters whose gain equals a proxy's gain over a constant.

    Args:
        prior_mn: JS of m = 0.. smoothed human votes [M + 1, N]; between whole raters the curve is drawn straight.
        constant_mn: the same with the proxy's mean.
        proxy_mn: the same with the proxy.
        speakers_n: the speaker of each clip.

    Returns:
        "alone", without votes, and "beside 1"..: value, 0 where the gain's interval holds 0; at_least, True where all
        raters bring less and `value` is their number; ci (low, high) over speakers, high None where it is beyond all
        raters, ci None for too few speakers; gain, by how much JS is below the constant's, and gain_ci.
    """
    keys = ["alone", *(f"beside {i}" for i in range(1, len(prior_mn) - 1))]
    return {
        key: _worth(prior_mn[i] - prior_mn[i:], constant_mn[i] - proxy_mn[i], speakers_n) for i, key in enumerate(keys)
    }


def _worth(raters_mn: np.ndarray, gain_n: np.ndarray, speakers_n: np.ndarray) -> dict[str, Any]:
    gain, gain_ci = float(gain_n.mean()), speaker_intervals({"gain": gain_n}, speakers_n)["gain"]
    most = len(raters_mn) - 1
    result = {"value": 0.0, "at_least": False, "ci": None, "gain": gain, "gain_ci": gain_ci}
    if gain > NOTHING and not (gain_ci and gain_ci[0] <= NOTHING):
        # More raters never bring less: of equal numbers the smallest is meant.
        gains_m, first_m = np.unique(np.maximum.accumulate(raters_mn.mean(axis=1)), return_index=True)
        at_least = bool(gain > gains_m[-1] + NOTHING)
        result |= {"value": float(most if at_least else np.interp(gain, gains_m, first_m)), "at_least": at_least}
    if gain_ci:
        result["ci"] = _worth_interval(raters_mn, gain_n, speakers_n)
    return result


def _worth_interval(raters_mn: np.ndarray, gain_n: np.ndarray, speakers_n: np.ndarray) -> tuple[float, float | None]:
    """The numbers of raters whose gain is not significantly another (Fieller): from the first to the last of them."""
    most = len(raters_mn) - 1
    tried = np.arange(0, most + STEP / 2, STEP)
    not_more, not_less = [], []
    for m in tried:
        i = min(int(m), most - 1)
        raters_n = raters_mn[i] + (m - i) * (raters_mn[i + 1] - raters_mn[i])
        low, high = speaker_intervals({"d": gain_n - raters_n}, speakers_n)["d"]
        not_more.append(low <= NOTHING)
        not_less.append(high >= -NOTHING)
    lowest = float(tried[not_more.index(True)]) if any(not_more) else float(most)
    last = max((i for i, here in enumerate(not_less) if here), default=0)
    return lowest, None if not_less[-1] else max(lowest, float(tried[last]))


def thinning(dataset: Dataset, proxies: Mapping[str, Mapping[str, Sequence[float]]], raters: int = 5) -> dict[str, Any]:
    """By ambiguity, JS of few votes with and without a proxy, and the proxy's worth in raters.

    Args:
        dataset: clips and human votes.
        proxies: name -> clip -> its distribution over the dataset's classes, made without the speaker's votes.
        raters: largest number of votes after thinning, from 1.

    Returns:
        JSON-able: raters, and `levels`: "all", "low", "medium", "high" -> n, n_speakers, votes_held_back (their mean
        number), js (name -> one value for each number of raters, from 1 for "votes" and from 0 for the others),
        js_constant (proxy -> the same with its mean in its place) and worth (proxy -> what `worth` returns).

    Raises:
        UserError: too few votes, or no clip of some proxy.
    """
    both = set(dataset.utterances)
    for name, probs in proxies.items():
        both &= set(probs)
        if not both:
            raise UserError(f"{name} says nothing about clips of {dataset.path} that the others are about.")
    deals = deal(dataset, raters, only=sorted(both))
    arrays = {name: np.array([probs[id] for id in deals.ids], float) for name, probs in proxies.items()}
    js, js_constant = estimates(deals, {name: normalise(probs_nk) for name, probs_nk in arrays.items()})
    counts_n = dataset.votes.counts(deals.ids, dataset.classes).sum(axis=1)
    parts = {"all": np.ones(len(deals.ids), bool)} | {name: deals.level_n == b for b, name in enumerate(NAMES)}
    levels = {}
    for level, here in parts.items():
        if not here.any():
            continue
        speakers_n = deals.speakers_n[here]
        levels[level] = {
            "n": int(here.sum()),
            "n_speakers": len(set(speakers_n)),
            "votes_held_back": float(counts_n[here].mean() - raters),
            "js": {name: js_mn[:, here].mean(axis=1).tolist() for name, js_mn in js.items()},
            "js_constant": {name: js_mn[:, here].mean(axis=1).tolist() for name, js_mn in js_constant.items()},
            "worth": {
                name: worth(js[PRIOR][:, here], js_constant[name][:, here], js[name][:, here], speakers_n)
                for name in proxies
            },
        }
    return {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "raters": raters,
        "deals": DEALS,
        "levels": levels,
    }


def _mean_of_others(values_nk: np.ndarray, fold_n: np.ndarray) -> np.ndarray:
    mean_nk = np.empty_like(values_nk)
    for fold in range(FOLDS):
        mean_nk[fold_n == fold] = values_nk[fold_n != fold].mean(axis=0)
    return mean_nk


def _js(deals: Deals, estimates_dnk: np.ndarray) -> np.ndarray:
    return js_divergence(deals.references_dnk, estimates_dnk).mean(axis=0)


def _cross_fitted(tried_wn: np.ndarray, fold_n: np.ndarray) -> np.ndarray:
    """Score per clip at the weight that is best on the speakers of other folds."""
    js_n = np.empty(tried_wn.shape[1])
    for fold in range(FOLDS):
        here = fold_n == fold
        others_w = tried_wn[:, ~here].mean(axis=1) if (~here).any() else tried_wn.mean(axis=1)
        js_n[here] = tried_wn[others_w.argmin(), here]
    return js_n


def _folds(speakers_n: np.ndarray, seed: int) -> np.ndarray:
    names, speaker_n = np.unique(speakers_n, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[speaker_n]
