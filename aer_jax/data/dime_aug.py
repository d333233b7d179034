"""DiME-Aug: rare emotions are filled up by interpolating between similar clips of the same emotion.

Zhang et al., "Scaling Ambiguity", arXiv 2601.14620. The result is a plan, not audio: which two clips, how
much of each, and which distribution. It is decided once from a seed, stored as JSON, and the audio is mixed
whenever a batch needs it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from aer_jax.data.examples import Example
from aer_jax.errors import UserError


@dataclass(frozen=True)
class Plan:
    """What DiME-Aug adds to a training split.

    Attributes:
        ratio, neighbours, seed: what the plan was made with.
        real: class -> clips whose most likely emotion it is.
        wanted: class -> clips that it should have: its own, or `ratio` x the largest class.
        mixes: the added examples, class by class.
    """

    ratio: float
    neighbours: int
    seed: int
    real: dict[str, int]
    wanted: dict[str, int]
    mixes: tuple[Example, ...]

    def notes(self) -> list[str]:
        """A sentence for each class that could not be filled; to be shown to the user."""
        return [
            f'DiME-Aug left class "{label}" at {self.real[label]} of {self.wanted[label]} training clips: '
            "interpolation needs two clips of the class."
            for label in self.real
            if self.real[label] < 2 and self.real[label] < self.wanted[label]
        ]


def plan(
    ids: Sequence[str],
    targets_nk: np.ndarray,
    classes: Sequence[str],
    features: Callable[[list[str]], np.ndarray],
    *,
    ratio: float,
    neighbours: int,
    seed: int,
) -> Plan:
    """Choose the interpolations.

    The class of a clip is its most likely emotion, the first of several equal ones. In each class below
    `ratio` x the largest, features are standardised within the class, and until it is filled a clip, one of
    its nearest neighbours (Euclidean; the clip itself not counted; all others where the class has no more)
    and alpha ~ U(0, 1) are drawn.

    Args:
        ids: training utterances.
        targets_nk: their distributions [n, K].
        classes: names of the K classes.
        features: ids -> float64 [len(ids), F]; asked once, only for clips of classes that are filled.
        ratio: share of the largest class that every class reaches, 0 to 1; 0 adds nothing.
        neighbours: k of the k nearest neighbours, at least 1.
        seed: the plan is a function of it and of the other arguments.

    Raises:
        UserError: ratio or neighbours is out of range.
    """
    if not 0 <= ratio <= 1:
        raise UserError(f"data.dime_aug.ratio is {ratio}; it must lie between 0 (off) and 1 (all classes equal).")
    if neighbours < 1:
        raise UserError(f"data.dime_aug.neighbours is {neighbours}; it must be at least 1.")
    targets_nk = np.asarray(targets_nk, np.float64)
    class_n = targets_nk.argmax(axis=1)
    real_k = np.bincount(class_n, minlength=len(classes))
    # The tolerance keeps 0.7 x 10 = 7.000000000000001 from asking for 8.
    wanted_k = np.maximum(real_k, math.ceil(ratio * real_k.max(initial=0) - 1e-9))
    filled = [k for k in range(len(classes)) if real_k[k] < wanted_k[k] and real_k[k] >= 2]

    members = {k: np.flatnonzero(class_n == k) for k in filled}
    chosen = [int(n) for k in filled for n in members[k]]
    features_of = dict(zip(chosen, features([ids[n] for n in chosen]), strict=True)) if chosen else {}
    mixes: list[Example] = []
    for k in filled:
        members_m = members[k]
        nearest_mj = nearest(np.stack([features_of[n] for n in members_m]), neighbours)
        # A generator for each class: what is drawn for one does not depend on the size of another.
        rng = np.random.default_rng([seed, k])
        for _ in range(wanted_k[k] - real_k[k]):
            i = rng.integers(len(members_m))
            j = nearest_mj[i, rng.integers(nearest_mj.shape[1])]
            alpha = rng.random()
            first, second = members_m[i], members_m[j]
            target_k = targets_nk[first] + alpha * (targets_nk[second] - targets_nk[first])
            target_k /= target_k.sum()
            mixes.append(Example(ids[first], tuple(target_k.tolist()), ids[second], alpha))
    return Plan(
        ratio, neighbours, seed,
        dict(zip(classes, real_k.tolist(), strict=True)),
        dict(zip(classes, wanted_k.tolist(), strict=True)),
        tuple(mixes),
    )  # fmt: skip


def nearest(features_mf: np.ndarray, neighbours: int) -> np.ndarray:
    """The nearest others of each clip in one class, after standardising each feature within the class.

    Args:
        features_mf: [m, F], m at least 2.
        neighbours: how many; m - 1 where the class is smaller.

    Returns:
        int [m, min(neighbours, m - 1)], nearest first.
    """
    standard_mf = StandardScaler().fit_transform(features_mf)
    search = NearestNeighbors(n_neighbors=min(neighbours, len(features_mf) - 1)).fit(standard_mf)
    # Without an argument sklearn leaves each point out of its own neighbours, also where clips coincide.
    return search.kneighbors(return_distance=False)


def to_json(plan: Plan) -> str:
    """The plan as JSON; numbers survive the round trip exactly."""
    return json.dumps(asdict(plan), indent=1)


def from_json(text: str) -> Plan:
    """The plan that `to_json` wrote.

    Raises:
        UserError: the text is something else.
    """
    try:
        settings = json.loads(text)
        mixes = tuple(Example(**{**mix, "target": tuple(mix["target"])}) for mix in settings.pop("mixes"))
        return Plan(**settings, mixes=mixes)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"this is not a DiME-Aug plan ({error}); delete it and it is made again.") from None
