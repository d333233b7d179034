"""The tensors in a directory of safetensors files: checked when it is opened, read row by row."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from aer_jax.base.hub import find_checkpoint
from aer_jax.errors import UserError
from aer_jax.files.atomic import read_json

# safetensors' names of the floating-point types that a checkpoint may hold
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
INDEX = "model.safetensors.index.json"
MOST_HEADER = 100_000_000  # bytes; safetensors' own limit

# What training code wraps around a model, and transformers' names in memory -> those in files.
WRAPPERS = re.compile(r"^(base_model\.model\.|base_model\.|module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")
FILE_NAMES = (
    (r"^(model\.)+(?=audio_tower\.|multi_modal_projector\.|language_model\.|lm_head\.)", ""),
    (r"^language_model\.(?!model\.|lm_head\.)", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
)


def unwrapped(name: str) -> str:
    """A tensor's name without what peft, torch.compile and data parallelism put around the model."""
    return WRAPPERS.sub("", name)


def file_name(name: str) -> str:
    """A tensor's name as Qwen2-Audio's checkpoint files spell it, from any layout or wrapper around the model."""
    name = unwrapped(name)
    for pattern, replacement in FILE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


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
        if len(bytes_n) < count * self.dtype.itemsize:
            raise UserError(f"{self.file} has become shorter since it was opened; copy it again and start anew.")
        return bytes_n.view(self.dtype)


class Checkpoint:
    """The tensors of a checkpoint directory; only headers are read here.

    Args:
        path: a checkpoint with config.json and model.safetensors, or several shards and their index; or its hub id.

    Attributes:
        files: the weight files.
        tensors: by their names in files, see `file_name`.

    Raises:
        UserError: no such checkpoint, no safetensors in it, a file that is missing, cut short or not safetensors, or
            files that contradict one another.
    """

    def __init__(self, path: str | Path):
        self.path = find_checkpoint(path)
        index = self.path / INDEX
        shards = _read_index(index) if index.exists() else {}
        self.files = sorted({self.path / name for name in shards.values()} or self.path.glob("model*.safetensors"))
        if not self.files:
            raise UserError(f"{self.path} holds no model*.safetensors weights; copy the whole of it.")
        single = self.path / "model.safetensors"
        if shards and single.exists() and single not in self.files:
            raise UserError(f"{single} is none of the files that {index} names; remove one of the two.")
        self.tensors: dict[str, Tensor] = {}
        for file in self.files:
            own = read_header(file)
            if shards and (wrong := own.keys() ^ {name for name, shard in shards.items() if shard == file.name}):
                says = "places" if min(wrong) not in own else "does not place"
                raise UserError(f"{index} {says} {min(wrong)} in {file.name}; copy the checkpoint again.")
            for name, tensor in own.items():
                other = self.tensors.setdefault(file_name(name), tensor)
                if other is not tensor:
                    raise UserError(
                        f"{self.path} holds {file_name(name)} twice, in {other.file.name} and in {file.name}; remove "
                        "the weights that are not meant."
                    )


def _read_index(index: Path) -> dict[str, str]:
    shards = read_json(index, "copy the checkpoint again").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError(f"{index} is not an index of safetensors files; copy the checkpoint again.")
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"{index} names the shard {str(name)[:80]!r}, which is no safetensors file next to it; copy the "
                "checkpoint again."
            )
    return shards


def read_header(file: Path) -> dict[str, Tensor]:
    """Name and place of every tensor in a safetensors file, all of them within the file and none within another.

    Raises:
        UserError: the file cannot be read or is not a whole safetensors file.
    """

    def broken(why: str) -> UserError:
        return UserError(f"{file} is not a whole safetensors file ({why}); download or copy it again.")

    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
            text = stream.read(start - 8) if start <= min(size, MOST_HEADER) else b""
    except OSError as error:
        raise UserError(f"cannot read the weights {file}: {error.strerror}; download or copy them again.") from None
    if not size:
        raise broken("it is empty")
    if start > size:
        raise broken("its header is cut short")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        places = {name: (entry["dtype"], entry["shape"], entry["data_offsets"]) for name, entry in header.items()}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise broken("its header cannot be read") from None
    tensors = {}
    for name, (dtype, shape, offsets) in places.items():
        if not (isinstance(dtype, str) and _are_counts(shape) and _are_counts(offsets) and len(offsets) == 2):
            raise broken(f"the header's entry of {name} cannot be read")
        begin, end = offsets
        if dtype not in DTYPES:
            raise UserError(f"{file}: {name} is {dtype}; only {', '.join(DTYPES)} weights are read.")
        if start + end > size:
            raise broken(f"{size} bytes, and {name} reaches to {start + end}")
        tensors[name] = tensor = Tensor(file, start + begin, np.dtype(DTYPES[dtype]), tuple(shape))
        if tensor.nbytes != end - begin:
            raise broken(f"{name} has {end - begin} bytes, which do not make {shape}")
    reached = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if tensor.start < reached:
            raise broken(f"{name} begins within another tensor")
        reached = tensor.start + tensor.nbytes
    if reached != size:
        raise broken(f"{size} bytes, and its tensors end at {reached}")
    return tensors


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)
