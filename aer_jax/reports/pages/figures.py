"""The report's figures as inline SVG whose colours are the page's CSS variables.

Matplotlib draws with placeholder colours; each is then replaced by `var(--name)`, so one figure is readable
on light and dark paper. Text stays text and takes the page's typeface.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aer_jax.evaluation.ambiguity import NAMES
from aer_jax.reports.runs import Run
from aer_jax.reports.table import Row

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
    css = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css[: css.index("@media")]))


_STYLE = style(PLACEHOLDERS)
_BASELINE_MARKS = {
    "Uniform": "x",
    "Training mean": "s",
    "Linear probe of the frozen encoder": "v",
    "Best constant (oracle)": "D",
    "Majority label (oracle)": "^",
    "Half the listeners vs half": "o",
}


# The same marks as text, for a legend that wraps; a figure's own is cut off where the browser's type is wider.
BASELINE_GLYPHS = dict(zip(_BASELINE_MARKS, "\u00d7\u25a1\u25bd\u25c7\u25b3\u25cb", strict=True))
_LONGEST = 36  # characters of a name in a figure


def arm_colour(i: int) -> str:
    """Name of the CSS variable of the i-th arm."""
    return f"arm-{i % ARM_COLOURS}"


def class_colour(k: int) -> str:
    """Name of the CSS variable of the k-th class."""
    return f"class-{k % CLASS_COLOURS}"


def divergence(rows: Sequence[Row]) -> Markup:
    """JS of arms and baselines with 95% intervals over speakers, one row each."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 0.6 + 0.27 * len(rows)), layout="constrained")
        ax = figure.add_subplot()
        for y, row in enumerate(rows):
            colour = _colour(row)
            js = row.values["js"]
            if js is None:
                ax.text(0, y, " not defined here", va="center", color=MUTED, fontsize=8)
                continue
            if row.interval:
                ax.plot(row.interval, [y, y], color=colour, lw=2, solid_capstyle="butt")
            face = colour if row.arm is not None else PAPER
            ax.plot(js, y, "o", ms=6, mfc=face, mec=colour, mew=1.4)
        of_arms = [js for row in rows if row.arm is not None and (js := row.values["js"]) is not None]
        ax.axvline(min(of_arms), color=RULE, lw=0.8, ls=(0, (3, 3)), zorder=0)
        ax.set_yticks(range(len(rows)), [_short(row.name) for row in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlim(left=0)
        # From the right edge: in the middle of narrow axes it would be cut off.
        ax.set_xlabel("JS divergence, lower is better", loc="right")
        ax.grid(axis="x")
        _bare(ax, "left")
        return svg(figure, "JS divergence of arms and baselines with 95% intervals over speakers")


def by_ambiguity(rows: Sequence[Row]) -> Markup:
    """JS in each bin of ambiguity: arms filled with intervals, baselines as open marks."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 0.6 + 0.27 * 8), layout="constrained")
        ax = figure.add_subplot()
        offsets = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else [0.0]
        for offset, row in zip(offsets, rows, strict=True):
            colour = _colour(row)
            shape = "o" if row.arm is not None else _BASELINE_MARKS[row.name]
            for x, name in enumerate(NAMES):
                part = row.by_ambiguity[name]
                if part["js"] is None:
                    continue
                if part["ci"]["js"]:
                    ax.plot([x + offset] * 2, part["ci"]["js"], color=colour, lw=1.6 if row.arm is not None else 0.8)
                face = colour if row.arm is not None else PAPER
                ax.plot(x + offset, part["js"], shape, ms=5, mfc=face, mec=colour, mew=1.1)
        counts = [rows[0].by_ambiguity[name]["n"] for name in NAMES]
        ax.set_xticks(range(3), [f"{name}\n{n} clips" for name, n in zip(NAMES, counts, strict=True)])
        ax.set_xlim(-0.5, 2.5)
        ax.set_ylim(bottom=0)
        ax.set_ylabel("JS divergence (base 2)")
        ax.grid(axis="y")
        ax.tick_params(axis="y", labelcolor=MUTED)
        _bare(ax, "left")
        return svg(figure, "JS divergence by ambiguity of the human votes")


def training_curves(runs: Sequence[Run]) -> list[Markup | None]:
    """Training and validation loss by optimizer step, one figure an arm, the same scale; None without a log."""
    curves = [(_curve(run, "loss"), _curve(run, "val_loss")) for run in runs]
    values = np.concatenate([[0.0], *(y for pair in curves for _, y in pair)])
    values = values[np.isfinite(values)]
    figures: list[Markup | None] = []
    with matplotlib.rc_context(_STYLE):
        for i, (run, (train, validation)) in enumerate(zip(runs, curves, strict=True)):
            if not len(train[0]) and not len(validation[0]):
                figures.append(None)
                continue
            figure = Figure((3.4, 2.1), layout="constrained")
            ax = figure.add_subplot()
            colour = PLACEHOLDERS[arm_colour(i)]
            ax.plot(*train, color=colour, lw=1, alpha=0.45, label="training")
            ax.plot(*validation, "o-", color=colour, lw=1.6, ms=3.2, label="validation")
            ax.set_ylim(0, 1.08 * values.max() or 1)
            ax.set_xlabel("optimizer step")
            ax.set_ylabel("loss (nats)")
            ax.grid(axis="y")
            ax.tick_params(axis="y", labelcolor=MUTED)
            ax.legend(loc="best")
            figures.append(svg(figure, f"training and validation loss of {run.name}"))
    return figures


def mean_distributions(runs: Sequence[Run]) -> Markup:
    """Mean share of each class: human test votes, training mean, and what each arm predicts."""
    metrics = runs[0].metrics
    classes = metrics["classes"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 0.95 + 0.36 * len(classes)), layout="constrained")
        ax = figure.add_subplot()
        y_k = np.arange(len(classes))
        human_k = [metrics["by_class"][name]["mean_reference"] for name in classes]
        trained_k = [metrics["baselines"]["train_mean"]["distribution"][name] for name in classes]
        ax.barh(y_k, human_k, height=0.72, color=RULE)
        ax.plot(trained_k, y_k, "|", ms=19, mew=1.6, color=MUTED)
        offsets = np.linspace(-0.22, 0.22, len(runs)) if len(runs) > 1 else [0.0]
        for i, (run, offset) in enumerate(zip(runs, offsets, strict=True)):
            predicted_k = [run.metrics["by_class"][name]["mean_predicted"] for name in classes]
            ax.plot(predicted_k, y_k + offset, "o", ms=5.5, color=PLACEHOLDERS[arm_colour(i)], mec=PAPER, mew=0.7)
        ax.set_yticks(y_k, [_short(name) for name in classes])
        ax.set_ylim(len(classes) - 0.5, -0.5)
        ax.set_xlim(left=0)
        ax.set_xlabel("mean share over clips", loc="right")
        _bare(ax, "left")
        return svg(figure, "mean predicted and mean human distribution by class")


def calibration(runs: Sequence[Run]) -> Markup:
    """Mean probability of the predicted top class against the share that listeners gave to that class."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 3.0), layout="constrained")
        ax = figure.add_subplot()
        ax.plot([0, 1], [0, 1], color=RULE, lw=1, ls=(0, (3, 3)))
        for i, run in enumerate(runs):
            bins = run.metrics["reliability"]
            full = [b for b, n in enumerate(bins["n"]) if n]
            x = [bins["confidence"][b] for b in full]
            y = [bins["reference"][b] for b in full]
            sizes = [14 + 110 * bins["n"][b] / run.metrics["n"] for b in full]
            colour = PLACEHOLDERS[arm_colour(i)]
            ax.plot(x, y, color=colour, lw=1.2)
            ax.scatter(x, y, s=sizes, color=colour, edgecolors=PAPER, linewidths=0.6, zorder=3, clip_on=False)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_xlabel("probability of the predicted top class")
        ax.set_ylabel("share of human votes for it")
        ax.tick_params(axis="y", labelcolor=MUTED)
        ax.grid()
        _bare(ax, "left", "bottom")
        return svg(figure, "calibration of the predicted top class against human votes")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[1 - _LONGEST // 2 :]}"


def _colour(row: Row) -> str:
    return MUTED if row.arm is None else PLACEHOLDERS[arm_colour(row.arm)]


def _curve(run: Run, key: str, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one key of the log; means over neighbours where there are more than `most` lines."""
    by_step = {line["step"]: line[key] for line in run.log if line.get(key) is not None}
    steps, values = np.array(list(by_step), float), np.array(list(by_step.values()), float)
    if len(steps) <= most:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), most)
    return np.array([steps[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])


def _bare(ax: Axes, *sides: str) -> None:
    for side in sides:
        ax.spines[side].set_visible(False)
    ax.tick_params(length=0)


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
