"""Parts of a text behind one another, and their masks of dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aer_jax.models.adapters.dropout import keep_mask
from aer_jax.models.adapters.lora import LoRA, dropout_masks
from aer_jax.models.layers import Linear
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
    keys = jax.random.split(jax.random.key(0), len(parts))
    linears = {name: Linear(8, 4, bias=False, rngs=nnx.Rngs(0)) for name in ("first", "second")}
    for linear in linears.values():
        linear.lora = LoRA((8, 4), 2, 1.0, 0.5, jax.random.key(1))
    masks = dropout_masks(linears, keys, packing.shapes, packing.pack)
    for nth, mask in enumerate(masks.values()):
        kept = packing.unpack(mask)
        for part, own, got in zip(parts, keys, kept, strict=True):
            alone = keep_mask(own, 0.5, (*part.shape[:2], 16))[..., 8 * nth : 8 * (nth + 1)]
            assert 0.2 < float(alone.mean()) < 0.8
            np.testing.assert_array_equal(got, for_each(alone, len(got)) if len(part) == 1 else alone)
