"""Audio windows: long enough, and the least computation that so many windows allow."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.data.windows import choose_windows, window_for
from aer_jax.lengths import MAX_SAMPLES

lengths = st.lists(st.integers(1, MAX_SAMPLES), min_size=1, max_size=60)


@given(lengths)
def test_a_window_is_long_enough_and_no_longer(samples_n):
    for samples, window in zip(samples_n, window_for(np.array(samples_n)), strict=True):
        assert window % 320 == 0 and samples <= window <= MAX_SAMPLES
        assert window - samples >= 320 or window == MAX_SAMPLES
        assert window - samples < 320 + 160 + 320


@given(lengths, st.integers(1, 6), st.integers(1, 8))
def test_every_clip_has_a_window(samples_n, count, batch):
    windows = choose_windows(samples_n, count, batch)
    assert 1 <= len(windows) <= count and list(windows) == sorted(set(windows))
    assert windows[-1] == window_for(np.array(samples_n)).max()


@given(st.lists(st.integers(1, 12_000), min_size=1, max_size=25), st.integers(1, 4), st.integers(1, 9))
def test_the_choice_is_optimal(samples_n, count, batch):
    def computed(windows):
        """Samples of all batches together."""
        clips = Counter(min(w for w in windows if w >= need) for need in window_for(np.array(samples_n)).tolist())
        return sum(w * batch * math.ceil(n / batch) for w, n in clips.items())

    *shorter, longest = sorted(set(window_for(np.array(samples_n)).tolist()))
    # The least, and among equals the fewest windows.
    best = min(
        (computed((*chosen, longest)), k + 1)
        for k in range(min(count, len(shorter) + 1))
        for chosen in combinations(shorter, k)
    )
    windows = choose_windows(samples_n, count, batch)
    assert (computed(windows), len(windows)) == best


def test_lengths_that_cannot_be_placed_are_refused():
    with pytest.raises(ValueError, match="cut before"):
        window_for(np.array([MAX_SAMPLES + 1]))
    with pytest.raises(ValueError, match="at least one clip"):
        choose_windows([], 3, 8)
