"""Where the annotating model lies, and the name by which its votes are known."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aer_jax.errors import UserError

_SLICES, _SLICE = 16, 4096


def find_checkpoint(model: str | Path) -> Path:
    """The directory of a checkpoint: `model` itself, or what the local Hugging Face cache has under that id.

    Raises:
        UserError: neither, or the directory lacks its configuration or its weights.
    """
    path = Path(model)
    if not path.is_dir() and str(model).count("/") == 1:
        path = _cached(str(model)) or path
    if not path.is_dir():
        raise UserError(
            f"{model} is neither a checkpoint directory nor a model in the local Hugging Face cache; "
            "give a directory, or fetch the model first with `hf download`."
        )
    for pattern, what in (("config.json", "config.json"), ("*.safetensors", "*.safetensors weights")):
        if not any(path.glob(pattern)):
            raise UserError(f"the checkpoint {path} holds no {what}; give a Qwen2-Audio directory.")
    return path.resolve()


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
    name = path.name if Path(model).is_dir() else str(model).split("/")[-1]
    return f"{name}-{digest.hexdigest()[:8]}"


def _cached(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
