"""Dropout by an explicit key: no key, no dropout, so evaluation cannot forget to turn it off."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout of [rows, width]; no key or rate 0 leaves `x` as it is."""
    return x if key is None or rate == 0 else jnp.where(keep_mask(key, rate, x.shape), x / kept_share(rate), 0)


def kept_share(rate: float) -> float:
    """The share that dropout of a rate above 0 keeps: whole 256ths, all but one at most."""
    return min(round((1 - rate) * 256), 255) / 256


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Bool mask of what dropout keeps, one random byte per number: hashing is most of dropout's cost.

    The bytes of a word are dealt out along time, or, where there is none, along the width, which no mesh divides.
    """
    words = jax.random.bits(key, (shape[0], -(-shape[1] // 4), *shape[2:]))
    below = round(kept_share(rate) * 256)
    return jnp.concatenate([(words >> 8 * place) % 256 < below for place in range(4)], axis=1)[:, : shape[1]]


def split_key(key: jax.Array | None, parts: int) -> list:
    """`jax.random.split`, None for None."""
    return [None] * parts if key is None else list(jax.random.split(key, parts))
