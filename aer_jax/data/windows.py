"""Audio windows: a few fixed lengths, so that a short clip does not pay for 30 s and nothing recompiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aer_jax.lengths import HOP, MAX_SAMPLES, TAIL, frame_count

# An even number of mel frames: the audio tower's convolutions keep every second one.
STEP = 2 * HOP


def window_for(samples_n: np.ndarray) -> np.ndarray:
    """The shortest window for each clip: a multiple of 320, `TAIL` longer than the clip's frames, at most 30 s.

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


def choose_windows(samples_n: Sequence[int] | np.ndarray, count: int, batch: int) -> tuple[int, ...]:
    """The windows for which an epoch computes fewest samples, padding and filler rows included.

    Exact, by dynamic programming. An optimal window is one that some clip needs, so the search runs over the distinct
    needs: the best cover of the i shortest needs by k windows extends the best cover of some j < i by k - 1.

    Args:
        samples_n: clip lengths in samples at 16 kHz, each in 1..480000.
        count: how many windows at most.
        batch: rows of a batch; the clips of a window come in whole batches.

    Returns:
        Window lengths in samples, ascending; the fewest with which the least is reached. Each clip goes to the first
        window that is not shorter than its own `window_for`.
    """
    if count < 1 or batch < 1 or not len(samples_n):
        raise ValueError("at least one clip, one window and one row are needed")
    needs_m, clips_m = np.unique(window_for(np.asarray(samples_n)), return_counts=True)
    before_m = np.concatenate([[0], np.cumsum(clips_m)])
    m = len(needs_m)
    # cost_ij: batches x window when the needs j..i-1 share the window of need i-1.
    unreachable = np.iinfo(np.int64).max // 4
    cost_ij = np.full((m + 1, m + 1), unreachable, np.int64)
    for i in range(1, m + 1):
        cost_ij[i, :i] = needs_m[i - 1] * -(-(before_m[i] - before_m[:i]) // batch)
    least_i = np.full(m + 1, unreachable, np.int64)
    least_i[0] = 0
    choices_ki, totals_k = [], []
    for _ in range(min(count, m)):
        total_ij = least_i[None, :] + cost_ij
        choices_ki.append(total_ij.argmin(axis=1))
        least_i = total_ij.min(axis=1)
        totals_k.append(least_i[m])
    windows, i = [], m
    for choice_i in reversed(choices_ki[: int(np.argmin(totals_k)) + 1]):
        windows.append(int(needs_m[i - 1]))
        i = int(choice_i[i])
    return tuple(reversed(windows))
