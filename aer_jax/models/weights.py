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


@dataclass(frozen=True)
class Rule:
    """How one kind of our parameters stands in a torch file: its name there and the order of its axes."""

    ours: str
    torch: str
    axes: tuple[int, ...] | None = None  # transpose that turns torch's array into ours


# Matched in this order against the parameter's path below its layer.
RULES = (
    Rule("conv1.kernel", "conv1.weight", (2, 1, 0)),  # torch [out, in, width] -> [width, in, out]
    Rule("conv2.kernel", "conv2.weight", (2, 1, 0)),
    Rule("kernel", "weight", (1, 0)),  # torch [out, in] -> [in, out]
    Rule("embedding", "weight"),
    Rule("scale", "weight"),
    Rule("bias", "bias"),
)

# Names in files carry a `language_model.` that the attributes do not.
FILE_NAMES = ((r"^language_model\.", "language_model.model."), (r"^lm_head\.", "language_model.lm_head."))


def file_name(path: tuple[str | int, ...]) -> tuple[str, Rule]:
    """A parameter's tensor name in a checkpoint file, the layer's number as `{}`, and its rule."""
    name = ".".join(map(str, path)).replace(".layers.", ".layers.{}.")
    rule = next(rule for rule in RULES if name.endswith(f".{rule.ours}"))
    name = name.removesuffix(rule.ours) + rule.torch
    for pattern, replacement in FILE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name, rule


def frozen_parameters(model: nnx.Module) -> Iterator[tuple[tuple[str | int, ...], nnx.Variable]]:
    """Every parameter of the base model: all that is not an adapter."""
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if not isinstance(variable, nnx.LoRAParam):
            yield path, variable


class Checkpoint:
    """The tensors of a checkpoint directory, memory-mapped.

    Args:
        path: directory with config.json and model.safetensors, or several shards and their index.

    Raises:
        UserError: no such directory, no safetensors in it, or a file that is cut short or not safetensors.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(
                f"no checkpoint directory at {self.path}; give the path of a Qwen2-Audio checkpoint."
            )
        files = sorted(self.path.glob("*.safetensors"))
        index = self.path / "model.safetensors.index.json"
        if index.exists():
            files = sorted(
                {self.path / name for name in json.loads(index.read_text())["weight_map"].values()}
            )
        if not files:
            pickled = [*self.path.glob("*.bin"), *self.path.glob("*.pt"), *self.path.glob("*.pth")]
            hint = "; its pickled weights are not read, convert them to safetensors" if pickled else ""
            raise UserError(f"{self.path} holds no *.safetensors weights{hint}.")
        self.tensors: dict[str, np.ndarray] = {}
        for file in files:
            self.tensors |= dict(_map_file(file))

    def read(self, name: str, index: tuple[slice, ...], axes: tuple[int, ...] | None) -> np.ndarray:
        """The part `index` of tensor `name` after its axes are put in our order."""
        tensor = self.tensors[name]
        return (tensor if axes is None else tensor.transpose(axes))[index]


def _map_file(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and memory-mapped array of every floating-point tensor in a safetensors file."""
    broken = f"{file} is not a whole safetensors file; download or copy it again"
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > file.stat().st_size:
                raise UserError(f"{broken} (its header is cut short).")
            header = json.loads(stream.read(size))
    except FileNotFoundError:
        raise UserError(
            f"{file} is named in the checkpoint's index and missing; download it again."
        ) from None
    except (ValueError, UnicodeDecodeError):
        raise UserError(f"{broken} (its header cannot be read).") from None
    end = (
        8
        + size
        + max(
            (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0
        )
    )
    if file.stat().st_size < end:
        raise UserError(f"{broken} ({file.stat().st_size} bytes of {end}).")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{file}: {name} is {entry['dtype']}; only {', '.join(DTYPES)} weights are read.")
        dtype = np.dtype(DTYPES[entry["dtype"]])
        offset = 8 + size + entry["data_offsets"][0]
        yield (
            name,
            np.memmap(file, dtype, "r", offset, tuple(entry["shape"]))
            if entry["shape"]
            else np.zeros(0, dtype),
        )


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
        UserError: names every tensor that is missing or has another shape than the model's.
    """
    state = nnx.state(model, nnx.Param)
    wrong, plan = [], []
    for path, variable in frozen_parameters(model):
        name, rule = file_name(path)
        stacked = "{}" in name
        shape = variable.shape[1:] if stacked else variable.shape
        for layer in range(variable.shape[0]) if stacked else [0]:
            tensor = checkpoint.tensors.get(name.format(layer))
            if tensor is None:
                wrong.append(f"{name.format(layer)} is missing")
                continue
            found = tensor.shape if rule.axes is None else tuple(tensor.shape[a] for a in rule.axes)
            if found != shape:
                wrong.append(
                    f"{name.format(layer)} is {list(tensor.shape)}, transposed {list(found)}, not {list(shape)}"
                )
        plan.append((path, variable, name, rule, stacked))
    if wrong:
        shown = "; ".join(wrong[:20]) + (f"; and {len(wrong) - 20} more" if len(wrong) > 20 else "")
        raise UserError(f"the weights in {checkpoint.path} do not fit its config.json: {shown}.")
    del state
    for path, variable, name, rule, stacked in plan:

        def read(index, name=name, rule=rule, stacked=stacked, shape=variable.shape):
            if not stacked:
                return np.asarray(checkpoint.read(name, index, rule.axes)).astype(dtype)
            layers = range(*index[0].indices(shape[0]))
            parts = [checkpoint.read(name.format(i), index[1:], rule.axes) for i in layers]
            return np.stack([np.asarray(part).astype(dtype) for part in parts])

        where = sharding(path, variable.shape)
        _set(model, path, jax.make_array_from_callback(variable.shape, where, read))


def _set(model: nnx.Module, path: tuple[str | int, ...], array: jax.Array) -> None:
    node = model
    for part in path[:-1]:
        node = getattr(node, str(part))
    getattr(node, str(path[-1])).set_value(array)


def base_tensors(model: nnx.Module) -> dict[str, np.ndarray]:
    """The base parameters under their names in a checkpoint file, float32, torch's layout; to be saved as safetensors."""
    tensors = {}
    for path, variable in frozen_parameters(model):
        name, rule = file_name(path)
        array = np.asarray(variable[...], np.float32)
        layers = list(enumerate(array)) if "{}" in name else [(0, array)]
        for i, part in layers:
            tensors[name.format(i)] = np.ascontiguousarray(
                part if rule.axes is None else part.transpose(np.argsort(rule.axes))
            )
    return tensors
