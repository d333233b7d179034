"""Which base a run was trained on, without reading all of it."""

from __future__ import annotations

import functools
import hashlib
import time
from pathlib import Path

from aer_jax.base.hub import find_checkpoint

# What the tokens of a prompt depend on.
TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
)
_FORM = "2:"
_MEBIBYTE = 1 << 20
_WHOLE = 8 * _MEBIBYTE  # a file up to this size is read whole
_BLOCKS, _BLOCK = 1024, 4096
_SETTLED_SECONDS = 2


def fingerprint(checkpoint: str | Path) -> str:
    """SHA-256 over config.json, tokenizer, chat template and processor files, and samples of the weights.

    Of each safetensors file: its size, its first mebibyte, which holds the header with every tensor's name, type and
    shape, and 1,024 blocks of 4 KiB spread over the rest, so that a change of any matrix of some mebibytes is seen.
    Read once per process while the files stay as they are.
    """
    path = find_checkpoint(checkpoint)
    texts = [path / name for name in ("config.json", *TEXT_FILES) if (path / name).is_file()]
    weights = sorted(path.glob("*.safetensors"))
    stats = [(file, file.stat()) for file in (*texts, *weights)]
    # A file that was changed just now may change again without a later time of change.
    settled = time.time() - max(stat.st_mtime for _, stat in stats) > _SETTLED_SECONDS
    read = _read if settled else _read.__wrapped__
    return read(tuple(texts), tuple(weights), tuple((stat.st_size, stat.st_mtime_ns) for _, stat in stats))


@functools.lru_cache(maxsize=8)
def _read(texts: tuple[Path, ...], weights: tuple[Path, ...], stats: tuple[tuple[int, int], ...]) -> str:
    """`stats` tells changed files from those that were read before."""
    digest = hashlib.sha256()
    for file in texts:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    for file in weights:
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_WHOLE if size <= _WHOLE else _MEBIBYTE))
            for block in range(_BLOCKS if size > _WHOLE else 0):
                stream.seek(_MEBIBYTE + block * (size - _MEBIBYTE - _BLOCK) // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK))
    return _FORM + digest.hexdigest()


def is_base(stored: object, checkpoint: str | Path) -> bool:
    """Whether a checkpoint is the one whose fingerprint was stored, in today's form or in that of older versions."""
    return stored == (fingerprint if str(stored).startswith(_FORM) else _first_form)(checkpoint)


def _first_form(checkpoint: str | Path) -> str:
    """Of older versions: config.json alone, and of each safetensors file its first and its last mebibyte."""
    path = find_checkpoint(checkpoint)
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for file in sorted(path.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as stream:
            digest.update(f"{file.name} {size}".encode())
            digest.update(stream.read(_MEBIBYTE))
            stream.seek(max(0, size - _MEBIBYTE))
            digest.update(stream.read())
    return digest.hexdigest()
