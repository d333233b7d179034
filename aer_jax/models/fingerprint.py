"""Which base a run was trained on, without reading all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aer_jax.hub import find_checkpoint

SAMPLE = 1 << 20


def fingerprint(checkpoint: str | Path) -> str:
    """SHA-256 over config.json and, of each safetensors file, its size and its first and last mebibyte.

    The first holds the header with every tensor's name, type and shape.
    """
    path = find_checkpoint(checkpoint)
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for file in sorted(path.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as stream:
            digest.update(f"{file.name} {size}".encode())
            digest.update(stream.read(SAMPLE))
            stream.seek(max(0, size - SAMPLE))
            digest.update(stream.read())
    return digest.hexdigest()
