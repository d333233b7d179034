"""Rematerialisation: what the backward pass keeps of each layer, and what it computes again."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

from aer_jax.config import Remat

_PRODUCT = "product"


def kept(y: jax.Array) -> jax.Array:
    """What a matrix gives and `dots` keeps: a linear layer's result with its adapter's, and that of the adapter's A."""
    return checkpoint_name(y, _PRODUCT)


# Everything; a layer's input and the products; its input alone. Forward and backward pass are separate loops, so
# nothing need keep the compiler from merging them.
REMAT: dict[Remat, Callable] = {
    "none": lambda body: body,
    "dots": functools.partial(
        jax.checkpoint, prevent_cse=False, policy=jax.checkpoint_policies.save_only_these_names(_PRODUCT)
    ),
    "full": functools.partial(jax.checkpoint, prevent_cse=False),
}
