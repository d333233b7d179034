"""The tensors in a directory of safetensors files: checked when it is opened, read row by row."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from aer_jax.errors import UserError
from aer_jax.hub import find_checkpoint

# safetensors' names of the floating-point types that a checkpoint may hold
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: `shape` values of `dtype` from byte `start` of `file` on."""

    file: Path
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Its values, or those of rows `begin` to `end` of its first axis.

        Not memory-mapped: pages of a map count as this process' memory, and faulting them in is the slower way.
        """
        if not self.shape:
            return self._read(0, 1).reshape(())
        end = self.shape[0] if end is None else end
        row = math.prod(self.shape[1:])
        return self._read(begin * row, (end - begin) * row).reshape(end - begin, *self.shape[1:])

    def _read(self, first: int, count: int) -> np.ndarray:
        offset = self.start + first * self.dtype.itemsize
        bytes_n = np.fromfile(self.file, np.uint8, count * self.dtype.itemsize, offset=offset)
        return bytes_n.view(self.dtype)


class Checkpoint:
    """The tensors of a checkpoint directory; only headers are read here.

    Args:
        path: a checkpoint with config.json and model.safetensors, or several shards and their index; or its hub id.

    Raises:
        UserError: no such checkpoint, no safetensors in it, or a file that is missing, cut short or not safetensors.
    """

    def __init__(self, path: str | Path):
        self.path = find_checkpoint(path)
        files = sorted(self.path.glob("model*.safetensors"))
        index = self.path / "model.safetensors.index.json"
        if index.exists():
            files = [self.path / name for name in _files_of(index)]
        if not files:
            raise UserError(f"{self.path} holds no model*.safetensors weights; copy the whole of it.")
        self.tensors: dict[str, Tensor] = {}
        for file in files:
            self.tensors |= _read_header(file)


def _files_of(index: Path) -> list[str]:
    """The shards that an index names."""
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is not an index of safetensors files; copy the checkpoint again.") from None


def _read_header(file: Path) -> dict[str, Tensor]:
    """Name and place of every tensor in a safetensors file, all of them within the file."""

    def broken(why: str) -> UserError:
        return UserError(f"{file} is not a whole safetensors file ({why}); download or copy it again.")

    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
            text = stream.read(start - 8) if start <= size else b""
    except OSError as error:
        raise UserError(f"cannot read the weights {file}: {error.strerror}; download or copy them again.") from None
    if not size:
        raise broken("it is empty")
    if start > size:
        raise broken("its header is cut short")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        places = {name: (entry["dtype"], entry["shape"], *entry["data_offsets"]) for name, entry in header.items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        raise broken("its header cannot be read") from None
    tensors = {}
    for name, (dtype, shape, *offsets) in places.items():
        if len(offsets) != 2 or not all(isinstance(n, int) and n >= 0 for n in (*shape, *offsets)):
            raise broken(f"the header's entry of {name} cannot be read")
        begin, end = offsets
        if dtype not in DTYPES:
            raise UserError(f"{file}: {name} is {dtype}; only {', '.join(DTYPES)} weights are read.")
        if start + end > size:
            raise broken(f"{size} bytes, and {name} reaches to {start + end}")
        tensor = Tensor(file, start + begin, np.dtype(DTYPES[dtype]), tuple(shape))
        if tensor.nbytes != end - begin:
            raise broken(f"{name} has {end - begin} bytes, which do not make {shape}")
        tensors[name] = tensor
    return tensors
