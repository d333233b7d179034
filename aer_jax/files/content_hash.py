"""SHA-256 digests of what lies on disk: a file that changed since it was written is noticed before it is believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aer_jax.errors import UserError
from aer_jax.files.json_text import parse_json

DIGEST = "digest"
# In a directory whose files are verified, the SHA-256 of every other file there.
DIGESTS = "sha256.json"


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the digest of its other content, in canonical form, under "digest"."""
    content = {key: item for key, item in value.items() if key != DIGEST}
    return content | {DIGEST: _canonical_sha256(content)}


def is_intact(value: Mapping[str, Any]) -> bool | None:
    """Whether an object that was read is as `seal` made it; None where it has no digest, as older versions wrote it."""
    try:
        return seal(value)[DIGEST] == value[DIGEST] if DIGEST in value else None
    except RecursionError:
        return False


def _canonical_sha256(content: dict[str, Any]) -> str:
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def folder_digests(folder: Path) -> dict[str, Any]:
    """The name of a directory and the SHA-256 of every file below it, sealed."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and DIGESTS not in file.name)
    return seal({"name": folder.name, "files": {str(file.relative_to(folder)): file_sha256(file) for file in files}})


def written_digests(folder: Path) -> dict[str, Any] | None:
    """The stored result of `folder_digests`; None where there is none.

    Raises:
        UserError: the file of digests is damaged.
    """
    try:
        digests = parse_json((folder / DIGESTS).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        digests = None
    if not isinstance(digests, dict) or not isinstance(digests.get("files"), dict) or not is_intact(digests):
        raise UserError(f"{folder} cannot be restored ({folder / DIGESTS} is damaged); copy it again.")
    return digests


def folder_digest(folder: Path) -> str:
    """One digest of all files of a directory.

    Raises:
        UserError: the file of digests is damaged, or a file cannot be read.
    """
    try:
        return (written_digests(folder) or folder_digests(folder))[DIGEST]
    except OSError as error:
        raise UserError(f"cannot read {error.filename} ({error.strerror}); copy {folder} again.") from None
