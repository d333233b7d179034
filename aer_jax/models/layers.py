"""Linear layer with room for an adapter, the exact GELU, the two norms, and the scan over stacked layers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from aer_jax.config import Remat
from aer_jax.models.adapters.lora import LoRA
from aer_jax.models.remat import REMAT, kept
from aer_jax.models.sharding import by_rows, gathered

INIT_STD = 0.02  # of a base that is trained from nothing; a loaded checkpoint overwrites it


class Linear(nnx.Module):
    """y = x W + b, plus an adapter where `lora.attach` put one.

    Args:
        d_in, d_out: widths; the kernel is [d_in, d_out], the transpose of torch's weight.
        bias: whether b exists.
    """

    def __init__(self, d_in: int, d_out: int, *, bias: bool, rngs: nnx.Rngs):
        self.kernel = nnx.Param(INIT_STD * jax.random.normal(rngs.params(), (d_in, d_out)))
        self.bias = nnx.Param(jnp.zeros(d_out)) if bias else None
        self.lora: LoRA | None = nnx.data(None)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """`mask` is that of the adapter's dropout; None, as in evaluation, turns it off."""
        y = x @ self.kernel[...]
        if self.bias is not None:
            y = y + self.bias[...]
        if self.lora is not None:
            y = y + self.lora(x, mask)
        return kept(y)


class Embedding(nnx.Module):
    """A table [entries, width]."""

    def __init__(self, entries: int, width: int, *, rngs: nnx.Rngs):
        self.embedding = nnx.Param(INIT_STD * jax.random.normal(rngs.params(), (entries, width)))


@functools.partial(jax.checkpoint, prevent_cse=False)  # its gradient needs x alone, not what float32 gave on the way
def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU in float32, by torch's formula: erf is half the work of the erfc in `jax.nn.gelu`."""
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1 + jax.lax.erf(x32 * 2**-0.5))).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation in float32, eps 1e-5 as in torch."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        mean = x32.mean(-1, keepdims=True)
        variance = jnp.square(x32 - mean).mean(-1, keepdims=True)
        y = (x32 - mean) * jax.lax.rsqrt(variance + 1e-5)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation in float32."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        y = x32 * jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + self.eps)
        return (y * self.scale[...]).astype(x.dtype)


def stack(layers: int, make: Callable[[nnx.Rngs], nnx.Module], rngs: nnx.Rngs) -> nnx.Module:
    """One module whose parameters carry a leading axis of `layers`, each layer drawn independently."""
    return nnx.split_rngs(splits=layers)(nnx.vmap(make, in_axes=0, out_axes=0))(rngs)


X = TypeVar("X")
Y = TypeVar("Y")


def scan(
    layers: nnx.Module,
    x: X,
    call: Callable[[nnx.Module, X, jax.Array | None], tuple[X, Y]],
    *,
    key: jax.Array | None,
    parts: int = 1,
    remat: Remat,
) -> tuple[X, Y]:
    """Run stacked layers one after another, compiled once.

    Args:
        layers: from `stack`.
        x: the carry, activations [batch, ...] or several of them.
        call: (layer, x, keys) -> (new x, what to collect of this layer or None).
        key: for dropout, split over layers and parts; None in evaluation.
        parts: of the states, each with keys of its own.
        remat: one of REMAT, what the backward pass computes again.

    Returns:
        the last carry, and what was collected, stacked over layers.
    """
    graphdef, state = nnx.split(layers)
    count = jax.tree.leaves(state)[0].shape[0]
    keys = None if key is None else jax.random.split(key, (count, parts))

    def body(x, layer):
        state, keys = layer
        x, collected = call(nnx.merge(graphdef, gathered(state)), jax.tree.map(by_rows, x), keys)
        return jax.tree.map(by_rows, x), collected

    return jax.lax.scan(REMAT[remat](body), x, (state, keys))
