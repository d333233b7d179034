"""Tables as Markdown or for a terminal, and the number formats in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits with a true minus sign; an en dash where there is none."""
    return NONE if value is None or value != value else f"{value:.{digits}f}".replace("-", _MINUS)


def percent(value: float | None) -> str:
    """A relative change in whole percent, signed."""
    if value is None:
        return NONE
    whole = round(100 * value)
    return f"{whole:+d}%".replace("-", _MINUS) if whole else "0%"


def counted(n: int, thing: str) -> str:
    """ "1 clip", "2 clips"; the plural ends in s."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def escape(text: str) -> str:
    """Escape text for one line of Markdown: no HTML, table cell, code, link or emphasis begins in it."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|`*\[\]])", r"\\\1", text)


def markdown(rows: Sequence[Sequence[str]], left: int = 1, formatted: bool = False) -> str:
    """A Markdown table, padded so that it can be read as it stands.

    Args:
        rows: the head, then the body.
        left: how many columns are text, aligned left; the others are aligned right.
        formatted: cells are Markdown already; else they are `escape`d.
    """
    lines = [list(row if formatted else map(escape, row)) for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
    head, *body = (f"| {' | '.join(_padded(line, widths, left))} |" for line in lines)
    return "\n".join([head, f"|{'|'.join(rule)}|", *body])


def markdown_rows(rows: Sequence[Mapping[str, str]]) -> str:
    """`markdown` of rows that name their columns, cells formatted already; the first row says which there are."""
    columns = list(rows[0])
    return markdown([columns, *([row[name] for name in columns] for row in rows)], formatted=True)


def text(rows: Sequence[Sequence[str]], left: int = 1, rules: Sequence[int] = ()) -> str:
    """A table for a terminal.

    Args:
        rows: the head, then the body.
        left: how many columns are aligned left; the others are aligned right.
        rules: rows above which a line is drawn.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for i, row in enumerate(rows):
        if i in rules:
            lines.append("─" * (sum(widths) + 2 * (len(widths) - 1)))
        lines.append("  ".join(_padded(row, widths, left)).rstrip())
    return "\n".join(lines)


def _padded(row: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    return [
        cell.ljust(width) if i < left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
