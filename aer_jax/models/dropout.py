"""Dropout by an explicit key: no key, no dropout, so evaluation cannot forget to turn it off."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aer_jax.models.packing import Packing


class PackedKey(NamedTuple):
    """A key for each part of what is packed: what is drawn for a part does not depend on where it lies."""

    packing: Packing
    keys: list[jax.Array]


Key = jax.Array | PackedKey


def dropout(x: jax.Array, rate: float, key: Key | None) -> jax.Array:
    """Inverted dropout; no key or rate 0 leaves `x` as it is."""
    return x if key is None or rate == 0 else thinned(x / kept_share(rate), rate, key)


def kept_share(rate: float) -> float:
    """The share that dropout of a rate above 0 keeps: whole 256ths, all but one at most."""
    return min(round((1 - rate) * 256), 255) / 256


def thinned(x: jax.Array, rate: float, key: Key) -> jax.Array:
    """Dropout that does not make up for what it drops, so that what stays is exact in any dtype."""
    if not isinstance(key, PackedKey):
        return jnp.where(_keep(key, rate, x.shape), x, 0)
    shapes = [(*shape, *x.shape[2:]) for shape in key.packing.shapes]
    parts = [_keep(own, rate, shape) for own, shape in zip(key.keys, shapes, strict=True)]
    return jnp.where(key.packing.pack(parts), x, 0)


def _keep(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """What stays, by a byte each: a hash of 20 rounds gives a word, and is most of what dropout costs.

    The bytes of a word are dealt out along an axis that no mesh divides.
    """
    axis = len(shape) - (2 if len(shape) > 2 else 1)
    words = jax.random.bits(key, (*shape[:axis], -(-shape[axis] // 4), *shape[axis + 1 :]))
    # Behind the barrier they are drawn once; XLA would repeat it for each byte and each product that reads the result.
    words = jax.lax.optimization_barrier(words)
    below = round(kept_share(rate) * 256)
    keep = jnp.concatenate([(words >> 8 * place) % 256 < below for place in range(4)], axis)
    return jax.lax.slice_in_dim(keep, 0, shape[axis], axis=axis)


def split_key(key: Key | None, parts: int) -> list:
    """`jax.random.split` that hands on the None of evaluation, and splits the key of each packed part."""
    match key:
        case None:
            return [None] * parts
        case PackedKey(packing, keys):
            return [
                PackedKey(packing, list(own)) for own in zip(*(jax.random.split(k, parts) for k in keys), strict=True)
            ]
        case _:
            return list(jax.random.split(key, parts))
