"""The audio window of a clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from aer_jax.base.lengths import HOP, MAX_SAMPLES, TAIL, frame_count

# The tower's convolutions keep every second mel frame, and of such states an even number pairs into audio tokens and
# suits cuDNN's attention, for which others would be copied.
STEP = 4 * HOP


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
