"""x A B for a low rank and x in bfloat16, nearly as exact as in float32 and without a copy of x in float32.

A number in float32 is, but for a rounding of 2^-17, the sum of two in bfloat16, its halves. Products with both halves,
side by side, cost what one of them costs, for the rank is far below the width of a chip's matrix unit; x, whose reading
is the cost, is read as it is. Accelerators would multiply float32 less exactly by default: TPUs round it to bfloat16,
GPUs to TF32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aer_jax.models.remat import kept


@jax.custom_vjp
def low_rank(x: jax.Array, a_dr: jax.Array, b_ro: jax.Array) -> jax.Array:
    """x A B, [..., d_out] in bfloat16, rounded once.

    Args:
        x: bfloat16 [..., d_in].
        a_dr, b_ro: float32; their gradients are, too.
    """
    return _forward(x, a_dr, b_ro)[0]


def _forward(x: jax.Array, a_dr: jax.Array, b_ro: jax.Array) -> tuple[jax.Array, tuple]:
    h = kept(_by_halves(x, a_dr))
    return _of_halves(h, b_ro), (x, a_dr, b_ro, h)


def _backward(kept: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, a_dr, b_ro, h = kept
    dh = _by_halves(dy, b_ro.T)
    x_nd, dy_no, h_nr, dh_nr = (each.reshape(-1, each.shape[-1]) for each in (x, dy, h, dh))
    return _of_halves(dh, a_dr.T), _by_halves(x_nd.T, dh_nr), _by_halves(dy_no.T, h_nr).T


low_rank.defvjp(_forward, _backward)


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The nearest bfloat16, and that of what it leaves."""
    high = x.astype(jnp.bfloat16)
    return high, (x - high.astype(jnp.float32)).astype(jnp.bfloat16)


def _by_halves(x: jax.Array, w_dr: jax.Array) -> jax.Array:
    """x W of bfloat16 and float32, in float32."""
    products = jnp.matmul(x, jnp.concatenate(_halves(w_dr), axis=-1), preferred_element_type=jnp.float32)
    high, low = jnp.split(products, 2, axis=-1)
    return high + low


def _of_halves(h: jax.Array, w_ro: jax.Array) -> jax.Array:
    """h W of a low rank, both float32, in bfloat16; what the lower halves give together is below what is kept."""
    (h_high, h_low), (w_high, w_low) = _halves(h), _halves(w_ro)
    return jnp.concatenate([h_high, h_low, h_high], axis=-1) @ jnp.concatenate([w_high, w_high, w_low], axis=0)
