"""Tables of what `aer-jax bench ... --json` wrote: python -m aer_jax.bench.tables FILE..."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODULES = {"ablations": "train"}  # of the module, where it is not the bench's name


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """A table whose columns are the first row's keys, padded so that it can be read as it stands."""
    columns = list(rows[0])
    cells = [columns, *([row[column] for column in columns] for row in rows)]
    widths = [max(3, *(len(line[i]) for line in cells)) for i in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        first, *others = zip(values, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(value.rjust(width) for value, width in others)]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def table_of(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of any bench's result."""
    name = result["bench"]
    return importlib.import_module(f"aer_jax.bench.{MODULES.get(name, name)}").table(result)


def text(result: Mapping[str, Any]) -> str:
    """The table of any bench's result, and what is to be known about it."""
    rows, note = table_of(result)
    return f"{markdown(rows)}\n\n{note}"


if __name__ == "__main__":
    for file in sys.argv[1:]:
        print(f"{file}\n\n{text(json.loads(Path(file).read_text()))}\n")
