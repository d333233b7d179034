"""How ambiguous an utterance is: the normalised entropy of its human distribution, in bins by value."""

from __future__ import annotations

import numpy as np
from scipy.stats import entropy

EDGES = (1 / 3, 2 / 3)
NAMES = ("low", "medium", "high")


def ambiguity(references_nk: np.ndarray) -> np.ndarray:
    """H(p) / log K with K all classes, not only those that got votes: [N, K] -> [N] in [0, 1].

    Few votes bias it down: three listeners cannot show more than three classes.
    """
    return np.clip(entropy(references_nk, axis=1) / np.log(references_nk.shape[1]), 0.0, 1.0)


def ambiguity_bins(ambiguity_n: np.ndarray) -> np.ndarray:
    """Index into NAMES: low below 1/3, medium from 1/3 to below 2/3, high from 2/3 on.

    By value, not by rank: tertiles of ranks would cut through equal values (the unanimous utterances).
    """
    # Rounded, so that a value that is 1/3 on paper does not fall by its last bit.
    return np.digitize(np.round(ambiguity_n, 9), np.round(EDGES, 9))
