"""Name of an annotating model in a journal."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aer_jax.base.hub import find_checkpoint, split_revision

_SLICES, _SLICE = 16, 4096


def model_name(model: str | Path) -> str:
    """Its last path component and 8 hex digits that change with configuration or weights.

    Samples of each weight file are hashed, not all of it, so that this takes no time for 16 GB.
    """
    path = find_checkpoint(model)
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for file in sorted(path.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            for part in range(_SLICES):
                stream.seek(part * max(0, size - _SLICE) // (_SLICES - 1))
                digest.update(stream.read(_SLICE))
    name = path.name if Path(model).is_dir() else split_revision(str(model))[0].split("/")[-1]
    return f"{name}-{digest.hexdigest()[:8]}"
