"""Cache of one array per file, written whole and verified by a digest on reading."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aer_jax.files.atomic import replace_bytes

_DIGEST = "sha256"


def save_array(path: Path, array: np.ndarray, about: Mapping[str, str] | None = None) -> None:
    """Write an array with metadata.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    array = np.ascontiguousarray(array)
    about = dict(about or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, save({"features": array}, metadata=about | {_DIGEST: _digest(array, about)}))


def load_array(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Read what `save_array` wrote.

    Raises:
        OSError: there is no such file or it cannot be read.
        ValueError: it is damaged or something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(file.metadata() or {})
            (name,) = file.keys()
            array = file.get_tensor(name)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"cannot be read ({error})") from None
    digest = about.pop(_DIGEST, None)
    if digest is None:
        raise ValueError("has no digest, for an older version wrote it")
    if digest != _digest(array, about):
        raise ValueError("is not what was written")
    return array, about


def _digest(array: np.ndarray, about: Mapping[str, str]) -> str:
    description = repr((array.dtype.str, array.shape, sorted(about.items())))
    return hashlib.sha256(description.encode() + array.tobytes()).hexdigest()
