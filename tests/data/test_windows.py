"""Audio windows: long enough and no longer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.base.lengths import MAX_SAMPLES
from aer_jax.data.batching.shapes import window_for

lengths = st.lists(st.integers(1, MAX_SAMPLES), min_size=1, max_size=60)


@given(lengths)
def test_a_window_is_long_enough_and_no_longer(samples_n):
    for samples, window in zip(samples_n, window_for(np.array(samples_n)), strict=True):
        assert window % 640 == 0 and samples <= window <= MAX_SAMPLES
        assert window - samples >= 320 or window == MAX_SAMPLES
        assert window - samples < 320 + 160 + 640


def test_lengths_that_cannot_be_placed_are_refused():
    with pytest.raises(ValueError, match="cut before"):
        window_for(np.array([MAX_SAMPLES + 1]))
