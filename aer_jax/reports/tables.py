"""The one writer of tables as text: Markdown, padded so that it can be read as it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown: the first column is aligned to the left, the others, which are mostly numbers, to the right.

    Args:
        header, rows: cells as they are shown; escape what comes from outside.
    """
    widths = [max(3, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths))
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])


def markdown_rows(rows: Sequence[Mapping[str, str]]) -> str:
    """`markdown_table` of rows that name their columns; the first says which there are."""
    return markdown_table(list(rows[0]), [[row[name] for name in rows[0]] for row in rows])
