"""Parts of a text behind one another, and their draws of dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aer_jax.models.dropout import PackedKey, split_key, thinned
from aer_jax.models.packing import UNIT, Packing, for_each


@pytest.fixture(params=[1, 2, 6], ids="{} copies".format)
def packing(request):
    """Of a part that all rows share, six rows, and six shorter ones."""
    return Packing(request.param, ((1, 5), (6, 4), (6, 3)))


@pytest.fixture
def parts(packing):
    return [jax.random.normal(jax.random.key(rows * time), (rows, time, 8)) for rows, time in packing.shapes]


def test_parts_come_back(packing, parts):
    packed = packing.pack(parts)
    rows = 6 // packing.copies
    assert packed.shape[1] % UNIT == 0 and 0 <= packed.shape[1] - (5 + rows * (4 + 3)) < UNIT
    shared, *own = packing.unpack(packed)
    np.testing.assert_array_equal(shared, np.repeat(parts[0], packing.copies, axis=0))
    for back, part in zip(own, parts[1:], strict=True):
        np.testing.assert_array_equal(back, part)
    np.testing.assert_array_equal(packing.pack([shared, *own]), packed)


def test_every_row_finds_its_own_copy(packing):
    copies = jnp.arange(packing.copies)[:, None]
    np.testing.assert_array_equal(for_each(copies, 6)[:, 0], np.arange(6) // (6 // packing.copies))


def test_what_is_dropped_does_not_depend_on_the_copies(packing, parts):
    """A shared part drops the same in each; so one mesh trains as another does."""
    keys = list(jax.random.split(jax.random.key(0), len(parts)))
    for nth in range(2):
        key = split_key(PackedKey(packing, keys), 2)[nth]
        dropped = packing.unpack(thinned(packing.pack(parts), 0.5, key))
        for part, own, got in zip(parts, keys, dropped, strict=True):
            alone = thinned(part, 0.5, jax.random.split(own, 2)[nth])
            assert 0.2 < float((alone == 0).mean()) < 0.8
            np.testing.assert_array_equal(got, for_each(alone, len(got)) if len(part) == 1 else alone)
