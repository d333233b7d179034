"""JSON that may hold anything: a value, or a ValueError in a few words."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes, *, nan: bool = False, unique: bool = False) -> Any:
    """A JSON value that Python can hold, print and write again.

    Args:
        text: of a file or a server; bytes are UTF-8, or UTF-16 and UTF-32 as their first bytes say.
        nan: take NaN and infinities, which Python's own writer makes, as floats.
        unique: refuse an object that names a key twice; Python keeps the last.

    Raises:
        ValueError: why not: no JSON, NaN, a key twice, nested too deeply, wrong encoding, half a surrogate pair.
    """
    try:
        text = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        value = _DECODERS[nan, unique].decode(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half a surrogate pair, which is no character") from None
    except ValueError as error:
        if "set_int_max_str_digits" in str(error):
            raise ValueError("a number has thousands of digits") from None
        raise
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" stands twice in one object')
    return fields


# Made once: a decoder with options costs more to make than a line to read.
_DECODERS = {
    (nan, unique): json.JSONDecoder(
        parse_constant=None if nan else _refuse_constant, object_pairs_hook=_refuse_twins if unique else None
    )
    for nan in (False, True)
    for unique in (False, True)
}
