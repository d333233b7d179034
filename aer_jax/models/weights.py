"""Hugging Face tensors <-> our parameters, by one naming rule, each process reading the bytes of its own shards."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from aer_jax.errors import UserError
from aer_jax.models.safetensors_files import Checkpoint

PIECE = 64 << 20  # bytes of a shard that the host may hold at once

# Name of each kind of parameter: ours, torch's, and whether torch keeps the axes in the opposite order.
RULES = (
    ("kernel", "weight", True),  # torch's linear [out, in] and convolution [out, in, width]
    ("embedding", "weight", False),
    ("scale", "weight", False),
    ("bias", "bias", False),
)

# Names in files carry a `language_model.` that the attributes do not.
FILE_NAMES = ((r"^language_model\.", "language_model.model."), (r"^lm_head\.", "language_model.lm_head."))
OUTPUT_LAYER = "language_model.lm_head.weight"


@dataclass(frozen=True)
class Parameter:
    """One of our base parameters and where it stands in a checkpoint file.

    Attributes:
        path: in the model.
        variable: the parameter itself.
        names: the tensor's name, or those of all layers for a parameter that stacks them.
        stacked: whether its first axis counts layers.
        reverse: whether torch keeps the axes of one layer in the opposite order.
    """

    path: tuple[str | int, ...]
    variable: nnx.Variable
    names: tuple[str, ...]
    stacked: bool
    reverse: bool

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Of each tensor."""
        shape = self.variable.shape[1:] if self.stacked else self.variable.shape
        return shape[::-1] if self.reverse else shape

    def nbytes(self, checkpoint: Checkpoint) -> int:
        """Its size in the files."""
        return sum(checkpoint.tensors[name].nbytes for name in self.names)

    def read(self, checkpoint: Checkpoint, index: tuple[slice, ...], dtype) -> np.ndarray:
        """The part `index` of the parameter from a checkpoint."""
        layers, within = (self.names[index[0]], index[1:]) if self.stacked else (self.names, index)
        parts = [self._turn(checkpoint.tensors[name].map())[within].astype(dtype) for name in layers]
        return np.stack(parts) if self.stacked else parts[0]

    def pieces(self, checkpoint: Checkpoint, index: tuple[slice, ...]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """The part `index` layer by layer, or a single tensor by runs of torch's first axis of about `PIECE` bytes.

        Yields:
            where the piece starts in the part, and its mapped values as torch orders them.
        """
        layers, within = (self.names[index[0]], index[1:]) if self.stacked else (self.names, index)
        within = within[::-1] if self.reverse else within
        for layer, name in enumerate(layers):
            part = checkpoint.tensors[name].map()[within]
            rows = len(part) if self.stacked else max(1, PIECE // part[0].nbytes)
            for row in range(0, len(part), rows):
                start = (row, *[0] * (part.ndim - 1))
                start = start[::-1] if self.reverse else start
                yield ((layer, *start) if self.stacked else start), part[row : row + rows]

    def tensors(self) -> dict[str, np.ndarray]:
        """Its value as float32 tensors in torch's layout."""
        array = np.asarray(self.variable[...], np.float32)
        layers = array if self.stacked else [array]
        return {name: np.ascontiguousarray(self._turn(a)) for name, a in zip(self.names, layers, strict=True)}

    def _turn(self, array: np.ndarray) -> np.ndarray:
        """One torch tensor in our order of axes, and back."""
        return array.T if self.reverse else array


def base_parameters(model: nnx.Module) -> Iterator[Parameter]:
    """Every parameter of the base model, adapters left out."""
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if isinstance(variable, nnx.LoRAParam):
            continue
        name = ".".join(map(str, path))
        ours, torch, reverse = next(rule for rule in RULES if name.endswith(f".{rule[0]}"))
        name = name.removesuffix(ours) + torch
        for pattern, replacement in FILE_NAMES:
            name = re.sub(pattern, replacement, name)
        stacked = ".layers." in name
        layers = range(variable.shape[0]) if stacked else [0]
        names = tuple(name.replace(".layers.", f".layers.{layer}.") for layer in layers)
        yield Parameter(path, variable, names, stacked, reverse)


def load_base(
    model: nnx.Module,
    checkpoint: Checkpoint,
    sharding: Callable[[tuple, tuple], jax.sharding.Sharding],
    dtype,
) -> None:
    """Fill the base parameters of an abstract `model` from a checkpoint, in place.

    Each process reads the bytes of its own shards and nothing else. What the host holds beside the arrays themselves
    is bounded by `PIECE` and one layer of one parameter, whatever the size of the model.

    Args:
        model: made under `nnx.eval_shape`; adapters and head are left alone.
        checkpoint: the tensors; that they fit is checked first, see `check_fit`.
        sharding: (path, shape) -> where a parameter lives.
        dtype: of the loaded parameters.

    Raises:
        UserError: names every tensor that does not fit.
    """
    check_fit(model, checkpoint)
    total = sum(tensor.nbytes for name, tensor in checkpoint.tensors.items())
    with tqdm(total=total, desc="weights", unit="B", unit_scale=True, delay=5) as progress:
        for parameter in base_parameters(model):
            parameter.variable.set_value(load_parameter(parameter, checkpoint, sharding, dtype))
            progress.update(parameter.nbytes(checkpoint))


def load_parameter(
    parameter: Parameter, checkpoint: Checkpoint, sharding: Callable[[tuple, tuple], jax.sharding.Sharding], dtype
) -> jax.Array:
    """One parameter on its devices; arguments are those of `load_base`."""
    shape = parameter.variable.shape
    where = sharding(parameter.path, shape)
    devices_of: dict[tuple, list[jax.Device]] = {}
    for device, index in where.addressable_devices_indices_map(shape).items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        devices_of.setdefault(bounds, []).append(device)
    shards = []
    for bounds, devices in devices_of.items():  # devices that hold the same part share one reading
        shards += _load_shard(parameter, checkpoint, tuple(slice(*bound) for bound in bounds), devices, dtype)
    return jax.make_array_from_single_device_arrays(shape, where, shards)


def _load_shard(parameter, checkpoint, index: tuple[slice, ...], devices, dtype) -> list[jax.Array]:
    """The part `index` on each device: read whole where it is small, else put together there piece by piece."""
    shape = tuple(part.stop - part.start for part in index)
    if math.prod(shape) * jnp.dtype(dtype).itemsize <= PIECE:
        part = parameter.read(checkpoint, index, dtype)
        return [jax.device_put(part, device) for device in devices]
    shards = [jnp.zeros(shape, dtype, device=device) for device in devices]
    for start, piece in parameter.pieces(checkpoint, index):
        shards = [
            _insert(shard, jax.device_put(piece, device), start, parameter.reverse, parameter.stacked)
            for shard, device in zip(shards, devices, strict=True)
        ]
        jax.block_until_ready(shards)  # or the pieces that wait would pile up
    return shards


@partial(jax.jit, donate_argnums=0, static_argnums=(3, 4))
def _insert(shard: jax.Array, piece: jax.Array, start: tuple, reverse: bool, stacked: bool) -> jax.Array:
    """Write a piece in torch's order of axes into a shard; turned and rounded on the device, which is quicker at it."""
    piece = piece.T if reverse else piece
    piece = piece[None] if stacked else piece
    return jax.lax.dynamic_update_slice(shard, piece.astype(shard.dtype), start)


def check_fit(model: nnx.Module, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that does not hold what the model asks for and, the output layer aside, nothing else.

    Raises:
        UserError: names every tensor that is missing, has another shape than the model's, or has no place in it.
    """
    parameters = list(base_parameters(model))
    asked = {name: parameter.torch_shape for parameter in parameters for name in parameter.names}
    found = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    wrong = [f"{name} is missing" for name in asked if name not in found]
    wrong += [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in asked.items()
        if name in found and found[name] != shape
    ]
    wrong += [f"{name} has no place in the model" for name in found if name not in asked and name != OUTPUT_LAYER]
    if wrong:
        shown = "; ".join(wrong[:20]) + (f"; and {len(wrong) - 20} more" if len(wrong) > 20 else "")
        raise UserError(f"the weights in {checkpoint.path} do not fit its config.json: {shown}.")


def base_tensors(model: nnx.Module) -> dict[str, np.ndarray]:
    """The base parameters by their names in a checkpoint file, float32, in torch's layout; for safetensors."""
    return {name: tensor for parameter in base_parameters(model) for name, tensor in parameter.tensors().items()}
