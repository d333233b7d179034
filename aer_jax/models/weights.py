"""Hugging Face safetensors <-> our parameters, by one naming rule; only the bytes that are asked for are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from flax import nnx

from aer_jax.errors import UserError

# safetensors' names of the floating-point types that a checkpoint may hold
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}

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

    def read(self, checkpoint: Checkpoint, index: tuple[slice, ...], dtype) -> np.ndarray:
        """The part `index` of the parameter from a checkpoint."""
        layers, within = (self.names[index[0]], index[1:]) if self.stacked else (self.names, index)
        parts = [self._turn(checkpoint.tensors[name])[within].astype(dtype) for name in layers]
        return np.stack(parts) if self.stacked else parts[0]

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


class Checkpoint:
    """The tensors of a checkpoint directory, memory-mapped.

    Args:
        path: directory with config.json and model.safetensors, or several shards and their index.

    Raises:
        UserError: no such directory, no safetensors in it, or a file that is missing, cut short or not safetensors.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"no checkpoint directory at {self.path}; give the path of a Qwen2-Audio checkpoint.")
        files = sorted(self.path.glob("model*.safetensors"))
        index = self.path / "model.safetensors.index.json"
        if index.exists():
            files = [self.path / name for name in _files_of(index)]
        if not files:
            pickled = [*self.path.glob("*.bin"), *self.path.glob("*.pt"), *self.path.glob("*.pth")]
            hint = "; its pickled weights are not read, convert them to safetensors" if pickled else ""
            raise UserError(f"{self.path} holds no model*.safetensors weights{hint}.")
        self.tensors: dict[str, np.ndarray] = {}
        for file in files:
            self.tensors |= _map_file(file)


def _files_of(index: Path) -> list[str]:
    """The shards that an index names."""
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is not an index of safetensors files; copy the checkpoint again.") from None


def _map_file(file: Path) -> dict[str, np.ndarray]:
    """Name and memory-mapped array of every tensor in a safetensors file."""

    def broken(why: str) -> UserError:
        return UserError(f"{file} is not a whole safetensors file ({why}); download or copy it again.")

    try:
        bytes_n = np.memmap(file, np.uint8, "r")
    except OSError as error:
        raise UserError(f"cannot read the weights {file}: {error.strerror}; download or copy them again.") from None
    except ValueError:
        raise broken("it is empty") from None
    start = 8 + int.from_bytes(bytes_n[:8].tobytes(), "little")
    if start > len(bytes_n):
        raise broken("its header is cut short")
    try:
        header = json.loads(bytes_n[8:start].tobytes())
        header.pop("__metadata__", None)
        entries = [(name, entry["dtype"], entry["shape"], entry["data_offsets"]) for name, entry in header.items()]
    except (ValueError, AttributeError, KeyError, TypeError):
        raise broken("its header cannot be read") from None
    tensors = {}
    for name, dtype, shape, (begin, end) in entries:
        if dtype not in DTYPES:
            raise UserError(f"{file}: {name} is {dtype}; only {', '.join(DTYPES)} weights are read.")
        if start + end > len(bytes_n):
            raise broken(f"{len(bytes_n)} bytes, and {name} reaches to {start + end}")
        try:
            tensors[name] = bytes_n[start + begin : start + end].view(DTYPES[dtype]).reshape(shape)
        except ValueError:
            raise broken(f"{name} has {end - begin} bytes, which do not make {shape}") from None
    return tensors


def load_base(
    model: nnx.Module,
    checkpoint: Checkpoint,
    sharding: Callable[[tuple, tuple], jax.sharding.Sharding],
    dtype,
) -> None:
    """Fill the base parameters of an abstract `model` from a checkpoint, in place.

    Each process reads the bytes of its own shards and nothing else; a stacked parameter is read layer by layer.

    Args:
        model: made under `nnx.eval_shape`; adapters and head are left alone.
        checkpoint: the tensors.
        sharding: (path, shape) -> where a parameter lives.
        dtype: of the loaded parameters.

    Raises:
        UserError: names every tensor that is missing, has another shape than the model's, or has no place in it.
    """
    parameters = list(base_parameters(model))
    _check_fit(parameters, checkpoint)
    for parameter in parameters:
        shape = parameter.variable.shape
        array = jax.make_array_from_callback(
            shape,
            sharding(parameter.path, shape),
            lambda index, parameter=parameter: parameter.read(checkpoint, index, dtype),
        )
        parameter.variable.set_value(array)


def _check_fit(parameters: list[Parameter], checkpoint: Checkpoint) -> None:
    """The checkpoint holds what the parameters ask for and, the output layer aside, nothing else."""
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
