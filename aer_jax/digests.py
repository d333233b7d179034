"""SHA-256 digests of what lies on disk: a file that changed since it was written is noticed before it is believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGEST = "digest"


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


def parse_json(text: str | bytes) -> Any:
    """A JSON value that Python can hold, print and write again.

    Raises:
        ValueError: in a few words, why not: no JSON, NaN, nested too deeply, no UTF-8, half a surrogate pair.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = _DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half a surrogate pair, which is no character") from None
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
