"""Content hashes of a run's inputs, so that a resumed run refuses other content under the same name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from aer_jax.base.fingerprint import fingerprint, is_base
from aer_jax.config import Config
from aer_jax.errors import UserError

# What stands in a dataset directory next to the audio, whose files are known by name and size.
TEXTS = ("dataset.json", "utterances.jsonl", "votes.jsonl", "splits.json")


def input_hashes(config: Config) -> dict[str, str]:
    """Setting -> SHA-256 of what it points to: the base, the dataset and, where votes are synthetic, the journal."""
    return {"model.checkpoint": fingerprint(config.model.checkpoint)} | data_hashes(config)


def data_hashes(config: Config) -> dict[str, str]:
    """`input_hashes` of the dataset and the journal alone."""
    hashes = {"data.dataset": dataset_hash(config.data.dataset)}
    if config.labels.source != "human" and config.labels.journal:
        hashes["labels.journal"] = _sha256([Path(config.labels.journal)])
    return hashes


def refuse_other_inputs(run: Path, config: Config, began_with: dict[str, str], base: bool = True) -> None:
    """Refuse settings that point to something else than when the run began.

    Args:
        base: False compares dataset and journal alone.

    Raises:
        UserError: one does, or what it points to is gone.
    """
    changed = [name for name, digest in data_hashes(config).items() if began_with.get(name, digest) != digest]
    stored = began_with.get("model.checkpoint")
    if base and stored is not None and not is_base(stored, config.model.checkpoint):
        changed.insert(0, "model.checkpoint")
    for name in changed:
        section, _, field = name.partition(".")
        raise UserError(
            f"{name}: {getattr(getattr(config, section), field)} is not what {run} was begun with; put the same "
            "one there, or begin a new run."
        )


def dataset_hash(path: str | Path) -> str:
    """SHA-256 of the text files of a dataset directory and of the names and sizes of its shards.

    Raises:
        UserError: a file is missing.
    """
    folder = Path(path)
    sizes = sorted(f"{file.name} {file.stat().st_size}" for file in folder.glob("*.array_record"))
    return _sha256([folder / name for name in TEXTS], "\n".join(sizes))


def _sha256(files: list[Path], more: str = "") -> str:
    digest = hashlib.sha256(more.encode())
    for file in files:
        try:
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise UserError(f"cannot read {file} ({error.strerror}); put it back.") from None
    return digest.hexdigest()
