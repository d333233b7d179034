"""Batch shapes: a few (audio window, prompt length) pairs, so that a short clip does not pay for the longest and
nothing recompiles.

Shapes ascend in both lengths, and an example belongs to the first one that holds it. Sorted from the longest shape to
the shortest and cut into batches, every batch but the very last is full: what does not fill a batch of its own shape
travels in the next longer one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from aer_jax.base.lengths import HOP, MAX_SAMPLES, TAIL, frame_count

# The tower's convolutions keep every second mel frame, and of such states an even number pairs into audio tokens and
# suits cuDNN's attention, for which others would be copied.
STEP = 4 * HOP
# Prompt lengths come in steps, so that near ones share a shape.
_TOKEN_STEP = 8
# Lengths that are tried along each axis; more change what is computed by less than half a percent.
CANDIDATES = 128


def window_for(samples_n: ArrayLike) -> np.ndarray:
    """The shortest window for each clip: a multiple of 640, `TAIL` longer than the clip's frames, at most 30 s.

    A clip of almost 30 s fills its window to the end, as it does in the 30 s that the model was published with.

    Args:
        samples_n: clip lengths in samples at 16 kHz, at most 480000.

    Returns:
        int64 [n].
    """
    samples_n = np.asarray(samples_n, np.int64)
    if samples_n.size and not (samples_n.min() > 0 and samples_n.max() <= MAX_SAMPLES):
        raise ValueError(f"clip lengths must lie in 1..{MAX_SAMPLES} samples; longer clips are cut before")
    return np.minimum(-(-(frame_count(samples_n) * HOP + TAIL) // STEP) * STEP, MAX_SAMPLES)


def needs_of(samples_n: ArrayLike, tokens_n: ArrayLike) -> np.ndarray:
    """The least shape that holds each clip and its prompt, int64 [n, 2]: samples, tokens after the prefix."""
    tokens_n = np.asarray(tokens_n, np.int64)
    return np.stack([window_for(samples_n), -(-tokens_n // _TOKEN_STEP) * _TOKEN_STEP], axis=1)


def choose_shapes(needs_n2: np.ndarray, longest_2: np.ndarray, count: int, batch: int) -> np.ndarray:
    """The fewest shapes that reach the least cost possible with `count` shapes, int64 [shapes, 2], ascending.

    Args:
        needs_n2, longest_2, batch: see `best_shapes`.
        count: how many shapes at most.
    """
    candidates = list(best_shapes(needs_n2, longest_2, count, batch))
    least = min(computed for computed, _ in candidates)
    return next(shapes_k2 for computed, shapes_k2 in candidates if computed <= least * (1 + 1e-12))


def best_shapes(
    needs_n2: np.ndarray, longest_2: np.ndarray, most: int, batch: int
) -> Iterator[tuple[float, np.ndarray]]:
    """For one shape, two, ... and `most`: the least cost of an epoch, and the shapes that give it.

    What is computed is audio plus positions, each in units of what the examples need of it, so that both padding
    shares count alike, whatever the model, padding and the last batch's padding rows included. Dynamic programming over
    the last shape: the best k shapes that end with (s, t) extend the best k - 1 that end with some (s', t') <= (s, t).
    Exact among ascending shapes made of the candidates, and these are all lengths that occur where they are few.
    Quantiles of the lengths would compute 9% more with four shapes on CREMA-D and 40% more on long-tailed lengths.

    Args:
        needs_n2: what each example of an epoch needs, see `needs_of`.
        longest_2: what any example of any epoch can need; the last shape.
        most: how many shapes at most.
        batch: rows of a batch.

    Yields:
        what is computed, never more than for one shape less, and shapes, int64 [k, 2], ascending; two may be equal.
    """
    needs_n2, longest_2 = np.asarray(needs_n2, np.int64), np.asarray(longest_2, np.int64)
    if most < 1 or batch < 1 or not len(needs_n2) or (needs_n2 > longest_2).any():
        raise ValueError("at least one example, one shape and one row are needed, and no example beyond the longest")
    s_i, t_j = (_candidates(needs_n, longest) for needs_n, longest in zip(needs_n2.T, longest_2, strict=True))
    fits_ij = np.zeros((len(s_i) + 1, len(t_j) + 1), np.int64)
    np.add.at(fits_ij, (np.searchsorted(s_i, needs_n2[:, 0]) + 1, np.searchsorted(t_j, needs_n2[:, 1]) + 1), 1)
    fits_ij = fits_ij.cumsum(axis=0).cumsum(axis=1)
    # A shape of which no example needs all the audio, or all the tokens, could be shorter. Few are left, for long clips
    # have long prompts.
    tight_ij = (fits_ij[1:, 1:] > fits_ij[:-1, 1:]) & (fits_ij[1:, 1:] > fits_ij[1:, :-1])
    tight_ij[-1, -1] = True
    i_v, j_v = np.nonzero(tight_ij)  # by s, then by t; the last is the longest
    mean_s, mean_t = needs_n2.mean(axis=0)
    cost_v = s_i[i_v] / mean_s + t_j[j_v] / mean_t
    # Batches whose first and longest example does not fit.
    beyond_v = -(-(len(needs_n2) - fits_ij[1:, 1:][i_v, j_v]) // batch)

    least_v = cost_v * (-(-len(needs_n2) // batch) - beyond_v)
    before_kv: list[np.ndarray] = []
    while True:
        chain = [len(i_v) - 1]
        for before_v in reversed(before_kv):
            chain.append(before_v[chain[-1]])
        yield float(least_v[-1]), np.stack([s_i[i_v[chain[::-1]]], t_j[j_v[chain[::-1]]]], axis=1)
        if len(chain) == most:
            return
        extended_v, before_v = np.empty_like(least_v), np.empty_like(i_v)
        for i in range(len(s_i)):
            own = slice(np.searchsorted(i_v, i), np.searchsorted(i_v, i, "right"))
            # [shapes not longer in audio, those of this audio]
            total = least_v[: own.stop, None] + beyond_v[: own.stop, None] * cost_v[own]
            total[j_v[: own.stop, None] > j_v[own]] = np.inf
            before_v[own] = total.argmin(axis=0)
            extended_v[own] = total.min(axis=0) - beyond_v[own] * cost_v[own]
        least_v = extended_v
        before_kv.append(before_v)


def bucketize(needs_n2: np.ndarray, shapes_k2: np.ndarray) -> np.ndarray:
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
