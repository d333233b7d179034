"""Audio windows: a few fixed lengths, so that a short clip does not pay for 30 s and nothing recompiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Samples at 16 kHz. The tower's first convolutions keep one position every 320 samples (two mel frames); the
# log-mel transform and the strided convolution look past the end of a clip, so 0.1 s of zeros after it makes
# its states equal to those of the 30 s window that the model was published with.
STEP = 320
MARGIN = 1600
LONGEST = 480_000


def window_for(samples_n: np.ndarray) -> np.ndarray:
    """The shortest window for each clip: a multiple of 320, at least 1600 samples longer, at most 30 s.

    Args:
        samples_n: clip lengths in samples at 16 kHz, at most 480000.

    Returns:
        int64 [n].
    """
    samples_n = np.asarray(samples_n, np.int64)
    if samples_n.size and not (samples_n.min() > 0 and samples_n.max() <= LONGEST):
        raise ValueError(f"clip lengths must lie in 1..{LONGEST} samples; longer clips are cut before")
    return np.minimum(-(-(samples_n + MARGIN) // STEP) * STEP, LONGEST)


def choose_windows(samples_n: Sequence[int] | np.ndarray, count: int) -> tuple[int, ...]:
    """The windows that waste least: an exact optimum by dynamic programming.

    An optimal window is one that some clip needs, so the search runs over the distinct needs: the best cover
    of the i shortest needs with k windows extends the best cover of some j < i with k - 1.

    Args:
        samples_n: clip lengths in samples at 16 kHz, each in 1..480000.
        count: how many windows at most.

    Returns:
        Window lengths in samples, ascending; fewer than `count` where fewer lengths occur. Each clip goes to
        the first window that is not shorter than its own `window_for`.
    """
    if count < 1 or not len(samples_n):
        raise ValueError("at least one clip and one window are needed")
    needs_m, clips_m = np.unique(window_for(np.asarray(samples_n)), return_counts=True)
    before_m = np.concatenate([[0], np.cumsum(clips_m)])
    m = len(needs_m)
    # cost_ij: samples computed when clips j..i-1 (sorted by need) share the window of clip i-1; the clips'
    # own lengths are the same whatever is chosen, so the least total is the least padding.
    unreachable = np.iinfo(np.int64).max // 4
    cost_ij = np.full((m + 1, m + 1), unreachable, np.int64)
    for i in range(1, m + 1):
        cost_ij[i, :i] = needs_m[i - 1] * (before_m[i] - before_m[:i])
    best_i = np.full(m + 1, unreachable, np.int64)
    best_i[0] = 0
    choices_ki = []
    for _ in range(min(count, m)):
        total_ij = best_i[None, :] + cost_ij
        choices_ki.append(total_ij.argmin(axis=1))
        best_i = total_ij.min(axis=1)
    windows, i = [], m
    for choice_i in reversed(choices_ki):
        windows.append(int(needs_m[i - 1]))
        i = int(choice_i[i])
    return tuple(reversed(windows))
