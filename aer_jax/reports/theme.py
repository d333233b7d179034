"""The plot theme: one style and one palette for figures inside pages and for figures in files.

Inside a page Matplotlib draws with placeholder colours; each is then replaced by `var(--name)`, so one figure is
readable on light and dark paper. Text stays text and takes the page's typeface.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aer_jax.files.atomic import replace_bytes

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

ARM_COLOURS, CLASS_COLOURS = 6, 10
_NAMES = ["ink", "muted", "rule", "paper", "synthetic"]
_NAMES += [f"arm-{i}" for i in range(ARM_COLOURS)] + [f"class-{i}" for i in range(CLASS_COLOURS)]
PLACEHOLDERS = {name: f"#{i:02}0b0b" for i, name in enumerate(_NAMES, 1)}
INK, MUTED, RULE, PAPER = (PLACEHOLDERS[name] for name in _NAMES[:4])
WIDTH = 4.6  # inches; the page shows figures between 4.9 and 7.5 inches of its own


def style(palette: Mapping[str, str]) -> dict[RcKeyType, Any]:
    """Matplotlib's settings with a palette's colours: `PLACEHOLDERS` for the page, `light()` for a picture."""
    return {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 9,
        "axes.edgecolor": palette["rule"],
        "axes.labelcolor": palette["muted"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": palette["rule"],
        "ytick.color": palette["rule"],
        "xtick.labelcolor": palette["muted"],
        "ytick.labelcolor": palette["ink"],
        "text.color": palette["ink"],
        "grid.color": palette["rule"],
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "legend.labelcolor": palette["muted"],
        "figure.facecolor": palette["paper"],
        "axes.facecolor": palette["paper"],
    }


def light() -> dict[str, str]:
    """The page's colours on light paper, by the names of their CSS variables."""
    css = (Path(__file__).with_name("pages") / "style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css[: css.index("@media")]))


def arm_colour(i: int) -> str:
    """Name of the CSS variable of the i-th arm."""
    return f"arm-{i % ARM_COLOURS}"


def class_colour(k: int) -> str:
    """Name of the CSS variable of the k-th class."""
    return f"class-{k % CLASS_COLOURS}"


def bare(ax: Axes, *sides: str) -> None:
    """Without ticks, and without the spines of these sides."""
    for side in sides:
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the path's ending names; the same bytes from the same numbers."""
    content = io.BytesIO()
    kind = path.suffix.lower()[1:]
    with matplotlib.rc_context({"svg.hashsalt": "aer_jax"}):
        figure.savefig(content, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    replace_bytes(path, content.getvalue())


def svg(figure: Figure, label: str) -> Markup:
    """The figure as one <svg> element that asks for nothing from outside."""
    buffer = io.StringIO()
    # The salt makes ids unique among the figures of a page, and the same in every run.
    with matplotlib.rc_context({"svg.hashsalt": label}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # only measured here; the browser has the glyph
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    # Matplotlib's own ids (figure_1, axes_1) repeat in every figure; only the salted ones are referred to.
    referred = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r'\sid="([^"]*)"', lambda m: m[0] if m[1] in referred else "", text)
    for name, placeholder in PLACEHOLDERS.items():
        text = text.replace(placeholder, f"var(--{name})")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))
