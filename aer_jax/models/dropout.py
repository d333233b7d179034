"""Dropout by an explicit key: no key, no dropout, so evaluation cannot forget to turn it off."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; no key or rate 0 leaves `x` as it is."""
    return x if key is None or rate == 0 else thinned(x / (1 - rate), rate, key)


def thinned(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Dropout that does not make up for what it drops, so that what stays is exact in any dtype."""
    # Behind the barrier the draw is made once; XLA would repeat it inside each product that reads the result.
    keep = jax.lax.optimization_barrier(jax.random.bernoulli(key, 1 - rate, x.shape))
    return jnp.where(keep, x, 0)


def split_key(key: jax.Array | None, parts: int) -> list[jax.Array | None]:
    """`jax.random.split` that hands on the None of evaluation."""
    return [None] * parts if key is None else list(jax.random.split(key, parts))
