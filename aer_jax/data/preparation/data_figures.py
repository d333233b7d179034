"""The data report's figures: bars and histograms as SVG that reads on light and dark paper.

They are drawn by hand rather than by matplotlib, whose import alone would take as long as preparing a small corpus.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np

_WIDTH, _TOP, _PLOT, _BOTTOM = 520, 52, 150, 40
_LEFT, _RIGHT = 48, 16
_FEW_COLUMNS = 100
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #5b6470 } .title { font-weight: 600; fill: #1c2430 }
  .name { fill: #1c2430 } .rule { stroke: #d8dde3 } .a { fill: #2f6db5 } .b { fill: #d98a29 } .c { fill: #3f9a6c }
  .off { fill: #b4bcc6 }
  @media (prefers-color-scheme: dark) {
    text { fill: #a4adb8 } .title, .name { fill: #e8ecf1 } .rule { stroke: #3a424d }
    .a { fill: #6ea8e8 } .b { fill: #eaa657 } .c { fill: #6cc497 } .off { fill: #5b6470 }
  }
"""


def bars(title: str, rows: Sequence[tuple[str, float, str, str]]) -> str:
    """Horizontal bars, one per row of (name, value, caption, style: a, b, c or off)."""
    step, left, top = 24, 118, 34
    most = max((value for _, value, _, _ in rows), default=0) or 1
    parts = []
    for i, (name, value, text, style) in enumerate(rows):
        y, length = top + i * step, value / most * (_WIDTH - left - 112)
        parts += [
            _text(left - 8, y + 13, _short(name), "name", "end"),
            f'<rect class="{style}" x="{left}" y="{y + 2}" width="{length:.1f}" height="{step - 8}"/>',
            _text(left + length + 6, y + 13, text),
        ]
    return _svg(title, top + len(rows) * step + 8, parts)


def histogram(title: str, values_n: np.ndarray, unit: str, edges: np.ndarray) -> str:
    """Histogram of values by edges; integers are centred between edges at halves."""
    counts, _ = np.histogram(values_n, edges)
    x0, x1 = float(edges[0]), float(edges[-1])
    parts = _scale(counts.max(), "clips")
    width = (_WIDTH - _LEFT - _RIGHT) / len(counts)
    for i, count in enumerate(counts):
        height = count / max(counts.max(), 1) * _PLOT
        parts.append(
            f'<rect class="a" x="{_LEFT + i * width + 0.5:.2f}" y="{_TOP + _PLOT - height:.2f}" '
            f'width="{max(width - 1, 0.5):.2f}" height="{height:.2f}"/>'
        )
    # A count has no halves.
    step = max(nice_step(x1 - x0, 8), 1.0 if x0 % 1 else 0.0)
    ticks = np.arange(np.ceil(x0 / step), np.floor(x1 / step) + 1) * step
    for tick in ticks:
        at = _LEFT + (tick - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT)
        parts.append(_text(at, _TOP + _PLOT + 16, f"{tick:g}", anchor="middle"))
    parts.append(_text(_WIDTH - _RIGHT, _TOP + _PLOT + 33, unit, anchor="end"))
    return _svg(title, _TOP + _PLOT + _BOTTOM, parts)


def columns(title: str, heights: Sequence[tuple[int, str]], unit: str, legend: Sequence[tuple[str, str]]) -> str:
    """A column each of (height, style), the tallest first; `legend` names the styles.

    More columns than can be told apart are mostly a long tail: they stand on a logarithmic scale, style by style.
    """
    many = len(heights) > _FEW_COLUMNS
    ordered = sorted(heights, key=lambda item: (item[1] if many else "", -item[0]))
    most = max((height for height, _ in ordered), default=1)
    logarithmic = many and most > 10
    parts = _log_scale(most, "clips") if logarithmic else _scale(most, "clips")
    width = (_WIDTH - _LEFT - _RIGHT) / max(len(ordered), 1)
    gap = 1 if width > 3 else 0
    for i, (height, style) in enumerate(ordered):
        tall = (np.log(2 * height) / np.log(2 * most) if logarithmic else height / most) * _PLOT
        parts.append(
            f'<rect class="{style}" x="{_LEFT + i * width:.2f}" y="{_TOP + _PLOT - tall:.2f}" '
            f'width="{width - gap:.2f}" height="{tall:.2f}"/>'
        )
    x = _LEFT
    for style, name in legend:
        parts += [
            f'<rect class="{style}" x="{x}" y="{_TOP + _PLOT + 23}" width="10" height="10"/>',
            _text(x + 15, _TOP + _PLOT + 33, name),
        ]
        x += 34 + 7 * len(name)
    unit += ", logarithmic" if logarithmic else ""
    parts.append(_text(_WIDTH - _RIGHT, _TOP + _PLOT + 33, unit, anchor="end"))
    return _svg(title, _TOP + _PLOT + _BOTTOM, parts)


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides `span` into at most `most` parts."""
    power = 10.0 ** np.floor(np.log10(max(span, 1e-9) / most))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= most)


def _scale(most: float, unit: str) -> list[str]:
    most = max(float(most), 1.0)
    step = max(nice_step(most, 4), 1.0)
    return _lines([(value, value / most) for value in np.arange(0, most + 1e-9, step).tolist()], unit)


def _log_scale(most: int, unit: str) -> list[str]:
    """Lines and numbers at powers of ten; the foot is one half, so that a single clip can be seen."""
    powers = 10 ** np.arange(int(np.log10(most)) + 1)
    return _lines([(value, math.log(2 * value) / math.log(2 * most)) for value in powers.tolist()], unit)


def _lines(ticks: Sequence[tuple[float, float]], unit: str) -> list[str]:
    parts = [_text(_LEFT - 6, _TOP - 13, unit, anchor="end")]
    for value, share in ticks:
        y = _TOP + _PLOT - share * _PLOT
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.2f}" y2="{y:.2f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{value:,.0f}", anchor="end"))
    return parts


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 16 else name[:15] + "…"


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    # What XML cannot hold, such as control characters in a label, is replaced.
    body = "\n".join(parts)
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>\n'
        f"{_text(2, 18, title, 'title')}\n{body}\n</svg>\n"
    )
    return "".join(c if c >= " " or c in "\n\t" else "?" for c in text)
