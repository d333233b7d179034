"""Packing of parts of a text into one array, so that token-wise layers run as one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aer_jax.models.sharding import row_blocks

UNIT = 8  # cuBLAS wants such lengths of bfloat16: XLA would copy others into longer ones, product by product


class Packing(NamedTuple):
    """How parts [rows, time, ...] lie in one array [copies, positions, ...], filled with zeros up to a `UNIT`.

    A copy holds the rows of one block of the mesh, and before them its own of each part that all rows share, a part of
    one row: no device asks another for it, forward or backward.

    Attributes:
        copies: blocks into which the mesh divides the rows; 1 where it does not.
        shapes: rows and time of each part.
    """

    copies: int
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, parts: Sequence[jax.Array]) -> Packing:
        """That of some parts on the mesh that is set."""
        blocks = row_blocks(jax.sharding.get_abstract_mesh())
        divides = max(len(x) for x in parts) % blocks == 0
        return cls(blocks if divides else 1, tuple((len(x), x.shape[1]) for x in parts))

    def pack(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Parts, a shared one as its row or one for each copy, as one array."""
        laid = [for_each(x, self.copies) if len(x) == 1 else x.reshape(self.copies, -1, *x.shape[2:]) for x in parts]
        x = jnp.concatenate(laid, axis=1)
        return jnp.pad(x, [(0, 0), (0, -x.shape[1] % UNIT)] + [(0, 0)] * (x.ndim - 2))

    def unpack(self, x: jax.Array) -> list[jax.Array]:
        """The parts again, [rows, time, ...]; a shared one has a row for each copy."""
        parts, start = [], 0
        for rows, time in self.shapes:
            stop = start + -(-rows // self.copies) * time
            parts.append(x[:, start:stop].reshape(-1, time, *x.shape[2:]))
            start = stop
        return parts


def for_each(x: jax.Array, rows: int) -> jax.Array:
    """Repeat what exists once per block of rows: [blocks, ...] -> [rows, ...]."""
    return jnp.broadcast_to(x[:, None], (len(x), rows // len(x), *x.shape[1:])).reshape(rows, *x.shape[1:])
