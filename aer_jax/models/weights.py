"""Hugging Face tensors <-> aer_jax parameters, by one naming rule; each process reads the bytes of its own shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.typing import PathParts
from tqdm import tqdm

from aer_jax.base.safetensors_files import Checkpoint, Tensor, file_name
from aer_jax.errors import UserError

PIECE = 64 << 20  # bytes that are read at once
BLOCK = 1 << 16  # values that are checked at once

# Name of each kind of parameter: aer_jax's, torch's, and whether torch keeps the axes in the opposite order.
RULES = (
    ("kernel", "weight", True),  # torch's linear [out, in] and convolution [out, in, width]
    ("embedding", "weight", False),
    ("scale", "weight", False),
    ("bias", "bias", False),
)

OUTPUT_LAYER = "language_model.lm_head.weight"
EMBEDDINGS = "language_model.model.embed_tokens.weight"


@dataclass(frozen=True)
class Parameter:
    """A base parameter and its tensors in a checkpoint file.

    Attributes:
        path: in the model.
        variable: the parameter itself.
        names: the tensor's name, or those of all layers for a parameter that stacks them.
        stacked: whether its first axis counts layers.
        reverse: whether torch keeps the axes of one layer in the opposite order.
    """

    path: PathParts
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

    def read(self, checkpoint: Checkpoint) -> np.ndarray:
        """All of it, in the file's type."""
        tensors = [self._turn(read_finite(checkpoint.tensors[name], name)) for name in self.names]
        return np.stack(tensors) if self.stacked else tensors[0]

    def tensors(self) -> dict[str, np.ndarray]:
        """Its value as float32 tensors in torch's layout."""
        array = np.asarray(self.variable[...], np.float32)
        layers = array if self.stacked else [array]
        return {name: np.ascontiguousarray(self._turn(a)) for name, a in zip(self.names, layers, strict=True)}

    def _turn(self, array: np.ndarray) -> np.ndarray:
        return array.T if self.reverse else array


def read_finite(tensor: Tensor, name: str, start: int = 0, end: int | None = None) -> np.ndarray:
    """A tensor's values, or those of some of its rows, see `Tensor.read`.

    Raises:
        UserError: one is NaN or infinite, or as good as that: beyond float32's and bfloat16's range.
    """
    values = tensor.read(start, end)
    # Compared as bits, in blocks that stay in the processor's cache: the fourth part of the time of isfinite.
    bits = values.reshape(-1).view(f"u{values.itemsize}")
    magnitude = bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    most = min(float(jnp.finfo(values.dtype).max), float(jnp.finfo(jnp.bfloat16).max))
    limit = np.asarray(most, values.dtype).view(bits.dtype)
    for start in range(0, bits.size, BLOCK):
        if (bits[start : start + BLOCK] & magnitude).max() > limit:
            raise UserError(
                f"{tensor.file}: {name} holds numbers that are NaN, infinite or beyond float32's range; the base's "
                "weights are damaged, so download or copy them again, or take another base."
            )
    return values


def base_parameters(model: nnx.Module) -> Iterator[Parameter]:
    """Every parameter of the base model, adapters left out."""
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if isinstance(variable, nnx.LoRAParam):
            continue
        name = ".".join(map(str, path))
        suffix, torch, reverse = next(rule for rule in RULES if name.endswith(f".{rule[0]}"))
        name = name.removesuffix(suffix) + torch
        name = file_name(name)
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

    Each process reads the rows that its own devices hold something of, once. What the host holds next to the arrays
    themselves is bounded by `PIECE` or one layer of one parameter, whatever the size of the model.

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
    index_of = {
        device: tuple(slice(*part.indices(size)) for part, size in zip(index, shape, strict=True))
        for device, index in where.devices_indices_map(shape).items()
        if device in where.addressable_devices
    }
    if parameter.nbytes(checkpoint) <= PIECE:
        whole = parameter.read(checkpoint).astype(dtype)
        shards = [jax.device_put(whole[index], device) for device, index in index_of.items()]
    else:
        shards = _load_pieces(parameter, checkpoint, index_of, dtype)
    return jax.make_array_from_single_device_arrays(shape, where, shards)


def _load_pieces(
    parameter: Parameter, checkpoint: Checkpoint, index_of: dict[jax.Device, tuple[slice, ...]], dtype
) -> list[jax.Array]:
    """The part `index_of` each device, put together there from layers, or from runs of rows of a single tensor."""
    shards = {
        device: jnp.zeros([part.stop - part.start for part in index], dtype, device=device)
        for device, index in index_of.items()
    }
    # From here on axes are in torch's order, in which the files hold rows; layers are never divided.
    parts = {device: index[1:] if parameter.stacked else index for device, index in index_of.items()}
    parts = {device: part[::-1] if parameter.reverse else part for device, part in parts.items()}
    first, last = min(part[0].start for part in parts.values()), max(part[0].stop for part in parts.values())
    for layer, name in enumerate(parameter.names):
        tensor = checkpoint.tensors[name]
        rows = last - first if parameter.stacked else max(1, PIECE * tensor.shape[0] // tensor.nbytes)
        for row in range(first, last, rows):
            end = min(row + rows, last)
            piece = read_finite(tensor, name, row, end)
            for device, (own, *others) in parts.items():
                low, high = max(row, own.start), min(end, own.stop)
                if low < high:
                    cut = jax.device_put(piece[low - row : high - row, *others], device)
                    start = (low - own.start, *[0] * len(others))
                    start = start[::-1] if parameter.reverse else start
                    start = (layer, *start) if parameter.stacked else start
                    shards[device] = _insert(shards[device], cut, start, parameter.reverse, parameter.stacked)
            jax.block_until_ready(list(shards.values()))  # or the pieces that wait would pile up
    return list(shards.values())


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
    expected = {name: parameter.torch_shape for parameter in parameters for name in parameter.names}
    present = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    wrong = [f"{name} is missing" for name in expected if name not in present]
    wrong += [
        f"{name} is {list(present[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in present and present[name] != shape
    ]
    wrong += [f"{name} has no place in the model" for name in present if name not in expected and name != OUTPUT_LAYER]
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise UserError(f"the weights in {checkpoint.path} do not fit its config.json: {shown}.")


def read_output_columns(checkpoint: Checkpoint, tokens: Sequence[int]) -> np.ndarray:
    """The output layer's columns of some tokens, float32 [hidden_size, tokens]; of tied weights the embeddings.

    Raises:
        UserError: a value is not finite.
    """
    name = OUTPUT_LAYER if OUTPUT_LAYER in checkpoint.tensors else EMBEDDINGS
    tensor = checkpoint.tensors[name]
    rows = [read_finite(tensor, name, token, token + 1)[0] for token in tokens]
    return np.stack(rows, axis=1).astype(np.float32)


def base_tensors(model: nnx.Module) -> dict[str, np.ndarray]:
    """The base parameters by their names in a checkpoint file, float32, in torch's layout; for safetensors."""
    return {name: tensor for parameter in base_parameters(model) for name, tensor in parameter.tensors().items()}
