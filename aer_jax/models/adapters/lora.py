"""Low-rank adapters (Hu et al., 2021, arXiv 2106.09685), equal to peft's in value and initialisation."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Key

from aer_jax.errors import UserError
from aer_jax.models.adapters.dropout import keep_mask, kept_share
from aer_jax.models.remat import kept
from aer_jax.models.sharding import by_rows

# As exact as float32, on matrix units: accelerators would by default round float32 to bfloat16 (TPU) or TF32 (GPU).
PRECISION = jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3


class LoRA(nnx.Module):
    """(alpha / rank) B A dropout(x), in float32; of x in bfloat16 by three products of bfloat16 (PRECISION).

    Args:
        shape: of the base kernel, [..., d_in, d_out]; leading axes are stacked layers.
        rank, alpha, dropout: as published; B starts at zero, so a new adapter changes nothing.
        key: draws A from U(-1/sqrt(d_in), 1/sqrt(d_in)), peft's Kaiming-uniform.
    """

    def __init__(self, shape: Sequence[int], rank: int, alpha: float, dropout: float, key: jax.Array):
        *stacked, d_in, d_out = shape
        bound = d_in**-0.5
        self.a = nnx.LoRAParam(jax.random.uniform(key, (*stacked, d_in, rank), minval=-bound, maxval=bound))
        self.b = nnx.LoRAParam(jnp.zeros((*stacked, rank, d_out)))
        self.scaling = alpha / rank
        self.dropout = dropout

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """[..., d_in] -> [..., d_out], in the dtype of x; `mask` is dropout's, None without dropout."""
        scaling = self.scaling
        if mask is not None and self.dropout:
            # What is dropped is made up for behind x, which stays exact in any dtype.
            x = jnp.where(mask, x, 0)
            scaling /= kept_share(self.dropout)
        if x.dtype == jnp.float32:
            return kept(x @ self.a[...]) @ self.b[...] * scaling
        h = kept(_matmul(x, self.a[...]))
        return _matmul(h, self.b[...] * scaling).astype(x.dtype)


# Checkpointed, so that the backward pass keeps x as it is and not its copy in float32.
@functools.partial(jax.checkpoint, prevent_cse=False)
def _matmul(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.matmul(x.astype(jnp.float32), weight, precision=PRECISION)


def dropout_masks(
    linears: Mapping[str, Adaptable],
    keys: jax.Array | None,
    shapes: Sequence[tuple[int, ...]],
    join: Callable[[Sequence[jax.Array]], jax.Array] = itemgetter(0),
) -> dict[str, jax.Array]:
    """Dropout masks of a layer's adapters, bool [..., d_in], by the names of their linear layers.

    They are one draw, cut in the order of `linears`: a hash is costly to compute and to compile. Empty where nothing is
    dropped.

    Args:
        linears: the layer's linear layers.
        keys: one for each part of its states; None in evaluation.
        shapes: rows and time of each.
        join: lays what is drawn for the parts as the states lie.
    """
    adapters = {name: linear.lora for name, linear in linears.items() if linear.lora is not None}
    rate = max((adapter.dropout for adapter in adapters.values()), default=0)  # `attach` gives the same to all
    if keys is None or rate == 0:
        return {}
    widths = [adapter.a.shape[-2] for adapter in adapters.values()]
    mask = join([keep_mask(own, rate, (*shape, sum(widths))) for own, shape in zip(keys, shapes, strict=True)])
    # Behind the barrier it is drawn once; XLA would repeat it for each product that reads the result.
    mask = jax.lax.optimization_barrier(mask)
    ends = list(itertools.accumulate(widths))
    # By rows alone: some inputs are divided along `tensor`, and devices would send each other their slices.
    return {
        name: by_rows(jax.lax.slice_in_dim(mask, end - width, end, axis=-1))
        for name, width, end in zip(adapters, widths, ends, strict=True)
    }


@runtime_checkable
class Adaptable(Protocol):
    """A linear layer with room for an adapter, see `layers.Linear`."""

    kernel: nnx.Param[jax.Array]
    lora: LoRA | None


def torch_name(path: Sequence[Key]) -> str:
    """A module's name in torch, the layer's number written N: `language_model.layers.N.mlp.up_proj`."""
    return ".".join("layers.N" if part == "layers" else str(part) for part in path)


def attach(
    model: nnx.Module, targets: Sequence[str], *, rank: int, alpha: float, dropout: float, key: jax.Array
) -> list[str]:
    """Give an adapter to every linear layer of `model` that a pattern matches.

    Args:
        targets: regular expressions on the whole torch name, see `torch_name`.

    Returns:
        the names that got one.

    Raises:
        UserError: a pattern is no regular expression or matches nothing.
    """
    linears = {torch_name(path): module for path, module in nnx.iter_modules(model) if isinstance(module, Adaptable)}
    chosen: dict[str, Adaptable] = {}
    for pattern in targets:
        try:
            matches = {name: module for name, module in linears.items() if re.fullmatch(pattern, name)}
        except re.error as error:
            raise UserError(f'model.lora.targets: "{pattern}" is not a regular expression: {error}.') from None
        if not matches:
            raise UserError(
                f'model.lora.targets: "{pattern}" matches no linear layer; the layers are {", ".join(sorted(linears))}.'
            )
        chosen |= matches
    for adapter_key, name in zip(jax.random.split(key, len(chosen)), sorted(chosen), strict=True):
        linear = chosen[name]
        linear.lora = LoRA(linear.kernel.shape, rank, alpha, dropout, adapter_key)
    return sorted(chosen)
