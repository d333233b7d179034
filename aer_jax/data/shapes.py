"""Batch shapes: a few (audio window, prompt length) pairs, so that a short clip does not pay for the longest and
nothing recompiles.

Shapes ascend in both lengths, and an example belongs to the first one that holds it. Sorted from the longest shape to
the shortest and cut into batches, every batch but the very last is full: what does not fill a batch of its own shape
travels in the next longer one.
"""

from __future__ import annotations

import numpy as np

from aer_jax.data.windows import window_for

# Prompt lengths come in steps, so that near ones share a shape.
_TOKEN_STEP = 8
# Lengths that are tried along each axis; more change what is computed by less than half a percent.
CANDIDATES = 128


def needs_of(samples_n: np.ndarray, tokens_n: np.ndarray) -> np.ndarray:
    """The least shape that holds each clip and its prompt, int64 [n, 2]: samples of the window, tokens."""
    tokens_n = np.asarray(tokens_n, np.int64)
    return np.stack([window_for(samples_n), -(-tokens_n // _TOKEN_STEP) * _TOKEN_STEP], axis=1)


def choose_shapes(needs_n2: np.ndarray, longest_2: np.ndarray, count: int, batch: int) -> np.ndarray:
    """The shapes with which an epoch computes least, padding and the last batch's fillers included.

    What is computed is audio plus positions, each in units of what the examples need of it, so that both padding
    shares count alike, whatever the model. Dynamic programming over the last shape: the best k shapes that end with
    (s, t) extend the best k - 1 that end with some (s', t') <= (s, t). Exact among ascending shapes made of the
    candidates, and these are all lengths that occur where they are few.

    Args:
        needs_n2: what each example of an epoch needs, see `needs_of`.
        longest_2: what any example of any epoch can need; the last shape.
        count: how many shapes at most.
        batch: rows of a batch.

    Returns:
        int64 [shapes, 2], ascending; the fewest with which the least is reached.
    """
    needs_n2, longest_2 = np.asarray(needs_n2, np.int64), np.asarray(longest_2, np.int64)
    if count < 1 or batch < 1 or not len(needs_n2) or (needs_n2 > longest_2).any():
        raise ValueError("at least one example, one shape and one row are needed, and no example beyond the longest")
    s_i, t_j = (_candidates(needs_n, longest) for needs_n, longest in zip(needs_n2.T, longest_2, strict=True))
    mean_s, mean_t = needs_n2.mean(axis=0)
    cost_ij = s_i[:, None] / mean_s + t_j / mean_t
    fits_ij = np.zeros((len(s_i), len(t_j)), np.int64)
    np.add.at(fits_ij, (np.searchsorted(s_i, needs_n2[:, 0]), np.searchsorted(t_j, needs_n2[:, 1])), 1)
    fits_ij = fits_ij.cumsum(axis=0).cumsum(axis=1)
    # Batches whose first and longest example does not fit.
    beyond_ij = -(-(len(needs_n2) - fits_ij) // batch)

    least_ij = cost_ij * (-(-len(needs_n2) // batch) - beyond_ij)
    descends_jj = np.where(np.triu(np.ones((len(t_j), len(t_j)), bool)), 0, np.inf)
    totals_k, before_kij = [least_ij[-1, -1]], []
    for _ in range(count - 1):
        extended_ij, before_ij = np.empty_like(least_ij), np.empty_like(beyond_ij)
        for i in range(len(s_i)):
            # [all shapes not longer in audio, t' of those, t]
            total = least_ij[: i + 1, :, None] + beyond_ij[: i + 1, :, None] * cost_ij[i] + descends_jj
            total = total.reshape(-1, len(t_j))
            before_ij[i] = total.argmin(axis=0)
            extended_ij[i] = total.min(axis=0) - beyond_ij[i] * cost_ij[i]
        least_ij = extended_ij
        totals_k.append(least_ij[-1, -1])
        before_kij.append(before_ij)
    fewest = int(np.argmax(np.array(totals_k) <= min(totals_k) * (1 + 1e-12)))
    i, j = len(s_i) - 1, len(t_j) - 1
    shapes = [(s_i[i], t_j[j])]
    for before_ij in reversed(before_kij[:fewest]):
        i, j = divmod(int(before_ij[i, j]), len(t_j))
        shapes.append((s_i[i], t_j[j]))
    return np.array(shapes[::-1])


def place(needs_n2: np.ndarray, shapes_k2: np.ndarray) -> np.ndarray:
    """The first shape that holds each example, int [n]; needs are as for `choose_shapes`."""
    axes = zip(np.asarray(shapes_k2).T, np.asarray(needs_n2).T, strict=True)
    return np.maximum(*(np.searchsorted(lengths_k, needs_n) for lengths_k, needs_n in axes))


def cut_into_batches(shape_n: np.ndarray, batch: int) -> list[tuple[int, np.ndarray]]:
    """(shape, indices of its examples) of every batch, longest first.

    Args:
        shape_n: the shape of each example; examples of one shape keep their order.
        batch: rows of a batch; the last batch, one of the shortest, may have fewer.
    """
    order = np.argsort(-np.asarray(shape_n), kind="stable")
    return [(int(shape_n[order[i]]), order[i : i + batch]) for i in range(0, len(order), batch)]


def _candidates(needs_n: np.ndarray, longest: int) -> np.ndarray:
    """Lengths to choose from, ascending: where they are many, half with equally many examples between them, and half
    equally far apart, for the long ones are few.
    """
    distinct = np.unique(np.append(needs_n, longest))
    if len(distinct) <= CANDIDATES:
        return distinct
    half = CANDIDATES // 2
    ranked = np.sort(needs_n)[np.linspace(0, len(needs_n) - 1, half + 1).astype(int)[1:]]
    spaced = distinct[np.searchsorted(distinct, np.linspace(distinct[0], distinct[-1], half + 1)[1:])]
    return np.unique([*ranked, *spaced, longest])
