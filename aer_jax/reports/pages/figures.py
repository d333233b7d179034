"""The report's figures as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from aer_jax.evaluation.ambiguity import NAMES
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.reports.runs import EvaluatedRun
from aer_jax.reports.table import Row
from aer_jax.reports.theme import MUTED, PAPER, PLACEHOLDERS, RULE, WIDTH, arm_colour, bare, style, svg

_STYLE = style(PLACEHOLDERS)
_BASELINE_MARKS = dict(zip((baseline.label for baseline in BASELINES.values()), "xsvD^o", strict=True))
# The same marks as text, for a legend that wraps; a figure's own is cut off where the browser's type is wider.
BASELINE_GLYPHS = dict(zip(_BASELINE_MARKS, "\u00d7\u25a1\u25bd\u25c7\u25b3\u25cb", strict=True))
_LONGEST = 36  # characters of a name in a figure


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
        bare(ax, "left")
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
        bare(ax, "left")
        return svg(figure, "JS divergence by ambiguity of the human votes")


def training_curves(runs: Sequence[EvaluatedRun]) -> list[Markup | None]:
    """Training and validation loss by optimizer step, one figure per arm on one scale; None without a log."""
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


def mean_distributions(runs: Sequence[EvaluatedRun]) -> Markup:
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
        bare(ax, "left")
        return svg(figure, "mean predicted and mean human distribution by class")


def calibration(runs: Sequence[EvaluatedRun]) -> Markup:
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
        bare(ax, "left", "bottom")
        return svg(figure, "calibration of the predicted top class against human votes")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[1 - _LONGEST // 2 :]}"


def _colour(row: Row) -> str:
    return MUTED if row.arm is None else PLACEHOLDERS[arm_colour(row.arm)]


def _curve(run: EvaluatedRun, key: str, most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one key of the log; means over neighbours where there are more than `most` lines."""
    by_step = {line["step"]: line[key] for line in run.log if line.get(key) is not None}
    steps, values = np.array(list(by_step), float), np.array(list(by_step.values()), float)
    if len(steps) <= most:
        return steps, values
    parts = np.array_split(np.arange(len(steps)), most)
    return np.array([steps[p].mean() for p in parts]), np.array([values[p].mean() for p in parts])
