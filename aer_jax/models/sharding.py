"""Sharding: one table from parameter names to mesh axes.

The mesh has three axes. `data` divides the batch alone. `fsdp` divides the batch and, so that a frozen 7B need not fit
on one chip, one axis of every large matrix; XLA gathers a layer's slice when it is due. `tensor` divides the heads and
the feed-forward width inside a layer (Shoeybi et al., 2019): matrices that open a block split their output, those that
close it split their input, so a block needs one reduction. The published audio tower has 20 heads, so a `tensor` axis
of 1, 2, 4, 5, 10 or 20 keeps heads whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aer_jax.config import MeshConfig
from aer_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
OPENS = r"(q_proj|k_proj|v_proj|gate_proj|up_proj|fc1|multi_modal_projector\.linear|lm_head|linear1|linear2)"
CLOSES = r"(o_proj|out_proj|down_proj|fc2)"

# First match wins. Specs name the last axes; the leading axis of stacked layers is never divided.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (rf"{OPENS}\.kernel", ("fsdp", "tensor")),
    (rf"{CLOSES}\.kernel", ("tensor", "fsdp")),
    (rf"{OPENS}\.bias", ("tensor",)),
    # An adapter follows its base: A shares the input's division, B the output's; the rank stays whole.
    (rf"{OPENS}\.lora\.a", ("fsdp", None)),
    (rf"{OPENS}\.lora\.b", (None, "tensor")),
    (rf"{CLOSES}\.lora\.a", ("tensor", None)),
    (rf"{CLOSES}\.lora\.b", (None, "fsdp")),
    (r"embed_tokens\.embedding", ("tensor", "fsdp")),
    # Norms, biases behind a reduction, convolutions, positions and the readout are small: a copy on each chip.
    (r"", ()),
)

BATCH = P(("data", "fsdp"))


def make_mesh(shape: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices.

    Raises:
        UserError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [shape.data, shape.fsdp, shape.tensor]
    known = int(np.prod([size for size in sizes if size > 0]))
    if sizes.count(-1) == 1 and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if min(sizes) < 1 or int(np.prod(sizes)) != len(devices):
        sizes_text = " x ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
        raise UserError(f"mesh: {sizes_text} does not make {len(devices)} devices; change the mesh section.")
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def sharding(mesh: Mesh | AbstractMesh, path: Sequence[str | int], shape: Sequence[int]) -> NamedSharding:
    """Sharding of the parameter at `path`."""
    return NamedSharding(mesh, spec_of(mesh, path, shape))


def spec_of(mesh: Mesh | AbstractMesh, path: Sequence[str | int], shape: Sequence[int]) -> P:
    """PartitionSpec of the parameter at `path`; an axis that a mesh axis does not divide is replicated."""
    name = ".".join(map(str, path))
    spec = next(spec for pattern, spec in RULES if re.search(pattern, name))
    spec = (None,) * (len(shape) - len(spec)) + spec
    return P(*(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(spec, shape, strict=True)))


def row_blocks(mesh: Mesh | AbstractMesh) -> int:
    """Number of blocks into which a mesh divides a batch's rows; 1 for an empty mesh."""
    return 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]


def by_rows(x: jax.Array) -> jax.Array:
    """Constrain activations [batch, ...] to sharding by rows alone; no-op without a mesh.

    A single row, which all devices need, is copied to each. Left to itself XLA would rather divide features along
    `fsdp`, as the weights are, and move activations about inside every matrix product.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and x.shape[0] == 1:
        return jax.lax.with_sharding_constraint(x, P())
    if mesh.empty or x.shape[0] % row_blocks(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)


def on_own_rows(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """shard_map of a row-wise `function` of activations [batch, ...].

    For what XLA cannot divide, a Fourier transform for instance: it would gather all rows on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or x.shape[0] % row_blocks(mesh):
        return function(x)
    return jax.shard_map(function, in_specs=BATCH, out_specs=BATCH)(x)


def gathered(parameters):
    """One layer's parameters as it computes with them: whole along `fsdp`, still divided along `tensor`.

    In the backward pass the same line scatters their gradients.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return parameters

    def gather(path, leaf):
        spec = spec_of(mesh, key_names(path), leaf.shape)
        return jax.lax.with_sharding_constraint(leaf, P(*(None if axis == "fsdp" else axis for axis in spec)))

    return jax.tree.map_with_path(gather, parameters)


def key_names(path) -> list[str]:
    """The names along a jax key path, without the `value` of an nnx variable."""
    names = [str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path]
    return [name for name in names if name != "value"]


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, P())
