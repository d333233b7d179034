"""Tables of what `aer-jax bench ... --json` wrote: python -m aer_jax.bench.tables FILE..."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aer_jax.files.tables import markdown_rows

MODULES = {"ablations": "train"}  # of the module, where it is not the bench's name


def table_of(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of any bench's result."""
    name = result["bench"]
    return importlib.import_module(f"aer_jax.bench.{MODULES.get(name, name)}").table(result)


def text(result: Mapping[str, Any]) -> str:
    """The table of any bench's result, with its notes."""
    rows, note = table_of(result)
    return f"{markdown_rows(rows)}\n\n{note}"


if __name__ == "__main__":
    for file in sys.argv[1:]:
        print(f"{file}\n\n{text(json.loads(Path(file).read_text()))}\n")
