"""How many human raters is a proxy worth? Human votes are thinned to a few, and scored against those held back.

Of each clip, in each of `DEALS` seeded deals, `held_back` votes at least stay aside as the reference, the same for all
estimates of the clip; the others are dealt out one by one. A few votes are a coarse estimate of a distribution, so
anything smooth helps them. They are therefore always smoothed by the mean of the other speakers' votes, which hears
nothing, and a proxy is worth what it adds to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.ambiguity import NAMES, ambiguity, ambiguity_bins
from aer_jax.evaluation.bootstrap import percentiles, speaker_draws
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.labels.votes import count_votes, normalise

DEALS = 20
FOLDS = 5  # of speakers; the weights for one fold are chosen on the others
# How many votes the other speakers' mean, and a proxy, count as; 0 leaves it out.
PRIOR_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
PROXY_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
PRIOR = "other speakers' mean"


@dataclass(frozen=True)
class Deals:
    """Votes dealt out.

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
    """Deal out the human votes of the clips that have `raters + held_back` whole votes for the classes.

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
    human = [vote for vote in dataset.votes if vote.source == "human" and vote.weight == int(vote.weight)]
    counts_nk = count_votes(human, ids, dataset.classes).astype(int)
    enough_n = counts_nk.sum(axis=1) >= raters + held_back
    ids, counts_nk = [id for id, here in zip(ids, enough_n, strict=True) if here], counts_nk[enough_n]
    speakers_n = np.array([dataset.utterances[id].speaker for id in ids])
    if len(set(speakers_n)) < 2:
        raise UserError(
            f"{len(ids)} clips of {len(set(speakers_n))} speaker(s) have {raters + held_back} whole votes or more; the "
            "study needs them of two speakers at least. Choose fewer raters, or a corpus with more votes a clip."
        )
    classes, most = counts_nk.shape[1], counts_nk.sum(axis=1).max()
    label_nv = np.full((len(ids), most), -1)
    for row_v, count_k in zip(label_nv, counts_nk, strict=True):
        row_v[: count_k.sum()] = np.repeat(np.arange(classes), count_k)
    rng = np.random.default_rng(seed)
    heard, references = [], []
    for _ in range(DEALS):
        # Places without a vote sort behind all votes.
        order_nv = np.argsort(rng.random(label_nv.shape) + (label_nv < 0), axis=1)
        first_nm = np.take_along_axis(label_nv, order_nv, axis=1)[:, :raters]
        heard.append(np.eye(classes, dtype=np.int16)[first_nm].cumsum(axis=1).swapaxes(0, 1))
        references.append(normalise(counts_nk - heard[-1][-1]))
    level_n = ambiguity_bins(ambiguity(normalise(counts_nk)))
    return Deals(ids, speakers_n, level_n, np.array(heard), np.array(references))


def estimates(deals: Deals, proxies: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """JS to the votes held back, of each clip, the mean over the deals.

    Args:
        deals: the votes.
        proxies: name -> distributions [N, K] of the clips, each made without the votes of the clip's speaker.
        seed: of the folds of speakers.

    Returns:
        "votes" [M, N]: m human votes alone; PRIOR [M + 1, N]: m = 0.. human votes smoothed; each proxy [M + 1, N]: the
        same pooled with it. The weights are chosen, for each m, on the other speakers.
    """
    fold_n = _folds(deals.speakers_n, seed)
    human_nk = deals.references_dnk.mean(axis=0)
    prior_nk = np.empty_like(human_nk)
    for fold in range(FOLDS):
        prior_nk[fold_n == fold] = human_nk[fold_n != fold].mean(axis=0)
    raters = deals.heard_dmnk.shape[1]
    heard = [np.zeros((1, *human_nk.shape)), *(deals.heard_dmnk[:, m] for m in range(raters))]

    def best(counts_dnk: np.ndarray, proxy_nk: np.ndarray, weights: Sequence[float]) -> np.ndarray:
        grid = [(v, w) for v in PRIOR_WEIGHTS for w in weights if v + w > 0 or counts_dnk.any()]
        tried = [_js(deals, normalise(counts_dnk + v * prior_nk + w * proxy_nk)) for v, w in grid]
        return _cross_fitted(np.array(tried), fold_n)

    found = {"votes": np.array([_js(deals, normalise(counts_dnk)) for counts_dnk in heard[1:]])}
    found[PRIOR] = np.array([best(counts_dnk, prior_nk, (0.0,)) for counts_dnk in heard])
    for name, proxy_nk in proxies.items():
        found[name] = np.array([best(counts_dnk, proxy_nk, PROXY_WEIGHTS) for counts_dnk in heard])
    return found


def worth(found: Mapping[str, np.ndarray], name: str, times_s: np.ndarray, speaker_n: np.ndarray) -> dict[str, float]:
    """How many raters give what a proxy gives, on clips counted `times_s[speaker]` times.

    Both are smoothed by the other speakers' mean; between whole numbers of raters the curve is drawn straight.

    Returns:
        "alone": raters whose votes are as good as the proxy without votes; "beside 1".. : how many raters the proxy
        stands for beside so many human votes. Cut at 0 and at the last point of the curve.
    """
    weight_n = times_s[speaker_n].astype(float)
    curve_m, with_m = (found[key] @ weight_n / weight_n.sum() for key in (PRIOR, name))
    curve_m = np.minimum.accumulate(curve_m)
    m = np.arange(len(curve_m))
    like_m = np.interp(-with_m, -curve_m, m)
    return {"alone" if i == 0 else f"beside {i}": float(max(0.0, like_m[i] - i)) for i in m[:-1]}


def thinning(dataset: Dataset, proxies: Mapping[str, Mapping[str, Sequence[float]]], raters: int = 5) -> dict[str, Any]:
    """The study, by ambiguity: JS of few votes with and without a proxy, and how many raters the proxy is worth.

    Args:
        dataset: clips and human votes.
        proxies: name -> clip -> its distribution over the dataset's classes, made without the speaker's votes.
        raters: votes are thinned to 1 to so many.

    Returns:
        JSON-able: raters, and `levels`: "all", "low", "medium", "high" -> n, n_speakers, votes_held_back (their mean
        number), js (name -> one value for each number of raters, from 1 for "votes" and from 0 for the others) and
        worth (proxy -> what `worth` returns, each with `ci` over speakers).

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
    found = estimates(deals, {name: normalise(probs_nk) for name, probs_nk in arrays.items()})
    counts_n = count_votes(dataset.votes, deals.ids, dataset.classes).sum(axis=1)
    parts = {"all": np.ones(len(deals.ids), bool)} | {name: deals.level_n == b for b, name in enumerate(NAMES)}
    levels = {}
    for level, here in parts.items():
        if not here.any():
            continue
        of_level = {name: js_mn[:, here] for name, js_mn in found.items()}
        levels[level] = {
            "n": int(here.sum()),
            "n_speakers": len(set(deals.speakers_n[here])),
            "votes_held_back": float(counts_n[here].mean() - raters),
            "js": {name: js_mn.mean(axis=1).tolist() for name, js_mn in of_level.items()},
            "worth": {name: _with_interval(of_level, name, deals.speakers_n[here]) for name in proxies},
        }
    return {
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "raters": raters,
        "deals": DEALS,
        "levels": levels,
    }


def _with_interval(found: Mapping[str, np.ndarray], name: str, speakers_n: np.ndarray) -> dict[str, Any]:
    drawn = speaker_draws(speakers_n)
    if drawn is None:
        speaker_n = np.zeros(len(speakers_n), int)
        return worth(found, name, np.ones(1), speaker_n) | {"ci": None}
    speaker_n, times_rs = drawn
    itself = worth(found, name, np.ones(times_rs.shape[1]), speaker_n)
    # Sums over speakers would be faster; 400 draws are enough for two ends of an interval.
    draws = [worth(found, name, times_s, speaker_n) for times_s in times_rs[:400]]
    return itself | {"ci": {key: percentiles(np.array([draw[key] for draw in draws])) for key in itself}}


def _js(deals: Deals, estimates_dnk: np.ndarray) -> np.ndarray:
    return js_divergence(deals.references_dnk, estimates_dnk).mean(axis=0)


def _cross_fitted(tried_wn: np.ndarray, fold_n: np.ndarray) -> np.ndarray:
    """Of each clip, the score at the weight that is best on the speakers of other folds."""
    js_n = np.empty(tried_wn.shape[1])
    for fold in range(FOLDS):
        here = fold_n == fold
        others_w = tried_wn[:, ~here].mean(axis=1) if (~here).any() else tried_wn.mean(axis=1)
        js_n[here] = tried_wn[others_w.argmin(), here]
    return js_n


def _folds(speakers_n: np.ndarray, seed: int) -> np.ndarray:
    names, speaker_n = np.unique(speakers_n, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[speaker_n]
