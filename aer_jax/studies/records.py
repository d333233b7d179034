"""Pages of docs/results, each made from a JSON file of the same name.

    python -m aer_jax.studies.records [DIRECTORY]

A page has a title, an intro and records; a record has a heading and, as far as they are known, date, commit, machine,
command, a figure, a table (columns and rows, or `bench`: a file that `aer-jax bench --json` wrote) and notes. A page
shows all of a table, or its `shown_columns` and the first `shown_rows`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aer_jax.bench.tables import table_of
from aer_jax.files import tables

DIRECTORY = Path("docs/results")


def pages(directory: Path) -> list[Path]:
    """JSON files that make a page; the others are a bench's own records."""
    return [file for file in sorted(directory.glob("*.json")) if "records" in json.loads(file.read_text())]


def render(file: Path) -> str:
    """A page in Markdown."""
    page = json.loads(file.read_text())
    data = f"Data: [{file.name}]({file.name})"
    parts = [f"# {page['title']}", *page["intro"], data]
    for record in page["records"]:
        parts += _record(record, file.parent)
    return "\n\n".join(parts) + "\n"


def _record(record: dict[str, Any], directory: Path) -> list[str]:
    parts = [f"## {record['heading']}"]
    if "commit" in record:
        parts.append(f"*{record['date']}, commit {record['commit']}; {record['machine']}*")
    if record.get("command"):
        parts.append(f"```sh\n{record['command']}\n```")
    if "bench" in record:
        rows, _ = table_of(json.loads((directory / record["bench"]).read_text()))
        parts += _shown(record, list(rows[0]), [list(row.values()) for row in rows])
    if "table" in record:
        parts += _shown(record["table"], record["table"]["columns"], record["table"]["rows"])
    if "figure" in record:
        parts.append("![{1}]({0})".format(*record["figure"]))
    notes = "\n".join(f"- {note}" for note in record["notes"])
    return parts + [notes] * bool(notes)


def _shown(choice: dict[str, Any], columns: list[str], rows: list[list[str]]) -> list[str]:
    shown = choice.get("shown_columns", columns)
    rows = rows[: choice.get("shown_rows", len(rows))]
    if not rows or not shown:
        return []
    cells = [[row[columns.index(name)] for name in shown] for row in rows]
    made = tables.markdown([[name or "side" for name in shown], *cells], formatted=True)
    return ["\n".join(line[2:-1].rstrip() for line in made.splitlines())]


if __name__ == "__main__":
    for source in pages(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY):
        source.with_suffix(".md").write_text(render(source))
