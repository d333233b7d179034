"""Quality of a journal on disk: proxies.json, and a figure of four panels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aer_jax.errors import UserError
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.files.atomic import replace_text
from aer_jax.reports import theme

Palette = Mapping[str, str]
GROUPS = 4  # of speakers that are shown by name
NO_GROUPS: dict[str, Any] = {"attribute": "", "rows": {}}


def write_quality(folder: Path, quality: dict[str, Any]) -> Path:
    """Write proxies.json and proxies.png into `folder`.

    Args:
        quality: what `evaluation.raters.quality.quality` returned.

    Returns:
        the figure's path.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / "proxies.json", json.dumps(quality, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        theme.save(draw(quality), folder / "proxies.png")
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}); choose another --out.") from None
    return folder / "proxies.png"


def draw(quality: dict[str, Any]) -> Figure:
    """Saturation, agreement, ambiguity, bias."""
    palette = theme.light()
    with matplotlib.rc_context(theme.style(palette)):
        figure = Figure((10.5, 7.4), layout="constrained")
        figure.suptitle(
            f"{quality['dataset']}: {quality['listeners']} synthetic listeners of {quality['model']} "
            f"({quality['answers']} answers, {quality['unparsed_share']:.1%} unparsed) against human raters, "
            f"{quality['utterances']} utterances",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        panels = figure.subplots(2, 2)
        for ax, panel in zip(panels.flat, (saturation, _agreement, _ambiguity, bias), strict=True):
            panel(ax, quality, palette)
            ax.tick_params(length=0)
        for ax, title in zip(
            (panels[0, 0], panels[1, 1]),
            ("How many are enough", "Labels used too often (above 0) or too seldom"),
            strict=True,
        ):
            ax.set_title(title)
        return figure


def saturation(ax: Axes, quality: dict[str, Any], palette: Palette) -> None:
    """JS by number of synthetic votes, with the fitted curve."""
    curve = quality["saturation"]
    js_m = np.array(curve["js"])
    n_m = np.arange(1, len(js_m) + 1)
    if all(curve["ci"]):
        low_m, high_m = np.array(curve["ci"]).T
        ax.fill_between(n_m, low_m, high_m, color=palette["synthetic"], alpha=0.15, lw=0)
    ax.plot(n_m, js_m, "o", ms=4, color=palette["synthetic"], label="synthetic votes, 95% over speakers")
    fine = np.linspace(1, max(len(js_m), 2), 200)
    if fit := curve["inverse"]:
        far = fine[fine >= 2]
        label = f"a + b / N, N without end: {fit['a']:.3f}"
        ax.plot(far, fit["a"] + fit["b"] / far, color=palette["muted"], lw=1, ls="--", label=label)
    if curve.get("exact") and curve["exact"]["js"] is not None:
        label = f"exact proxy, N without end: {curve['exact']['js']:.3f}"
        ax.axhline(curve["exact"]["js"], color=palette["arm-1"], lw=1.4, label=label)
    half = quality.get("baselines", {}).get("split_half")
    if half and half["js"] is not None:
        ax.axhline(half["js"], color=palette["arm-2"], lw=1, ls=":", label="half the listeners vs half")
    ax.set_xlabel("synthetic votes per utterance")
    ax.set_ylabel("JS divergence (base 2)")
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    ax.grid(axis="y")
    ax.legend(loc="best")


def _agreement(ax: Axes, quality: dict[str, Any], palette: Palette) -> None:
    rows = [("synthetic votes", quality, palette["synthetic"])]
    if quality["exact"]:
        rows.append(("exact proxy", quality["exact"], palette["arm-1"]))
    rows += [
        (baseline.label, quality["baselines"][key], palette["muted"])
        for key, baseline in BASELINES.items()
        if key in quality["baselines"]
    ]
    for y, (_, row, colour) in enumerate(rows):
        if row["ci"]["js"]:
            ax.plot(row["ci"]["js"], [y, y], color=colour, lw=2)
        ax.plot(row["js"], y, "o", color=colour, ms=6)
        ax.annotate(f"{row['js']:.3f}", (row["js"], y), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    y = len(rows)
    ax.plot(quality["js_shuffled"], y, "x", color=palette["muted"], ms=6)
    ax.annotate(f"p = {quality['p_shuffled']:.3f}", (quality["js_shuffled"], y), (0, 7), textcoords="offset points",
                ha="center", fontsize=8)  # fmt: skip
    ax.set_yticks(range(y + 1), [name for name, *_ in rows] + ["synthetic, shuffled"])
    ax.set_ylim(y + 0.5, -0.7)
    ax.set_xlim(left=0)
    ax.set(title="Agreement with people", xlabel="JS divergence (base 2), lower is better")
    ax.grid(axis="x")


def _ambiguity(ax: Axes, quality: dict[str, Any], palette: Palette) -> None:
    marks = {"uniform": "x", "best_constant": "D", "split_half": "s"}
    rows = list(quality["by_ambiguity"].items())
    for x, (_, row) in enumerate(rows):
        if row["js"] is None:
            continue
        if row["ci"]["js"]:
            ax.plot([x, x], row["ci"]["js"], color=palette["synthetic"], lw=2)
        ax.plot(x, row["js"], "o", color=palette["synthetic"], ms=6)
        for place, (key, mark) in zip((0.14, 0.22, 0.3), marks.items(), strict=True):
            if row["baselines"][key]["js"] is not None:
                ax.plot(x + place, row["baselines"][key]["js"], mark, mfc="white", mec=palette["muted"], ms=5)
    ax.plot([], [], "o", color=palette["synthetic"], label="synthetic votes")
    for key, mark in marks.items():
        ax.plot([], [], mark, mfc="white", mec=palette["muted"], ms=5, label=BASELINES[key].label)
    ax.set_xticks(range(len(rows)), [f"{name}\n{row['n']} clips" for name, row in rows])
    ax.set_xlim(-0.5, len(rows) - 0.4)
    ax.set_ylim(bottom=-0.015)
    ax.set(title="By ambiguity of the human votes", ylabel="JS divergence (base 2)")
    ax.grid(axis="y")
    ax.legend(loc="best", ncols=2)


def bias(ax: Axes, quality: dict[str, Any], palette: Palette) -> None:
    """Share of each label in the synthetic votes minus its share in the human ones."""
    classes = quality["classes"]
    attribute, groups = (quality.get("groups") or NO_GROUPS).values()
    of_all, ci_of_all = ({k: quality["by_class"][k][what] for k in classes} for what in ("bias", "ci"))
    parts = [("all", of_all, ci_of_all, palette["ink"])]
    named = 1 < len(groups) <= GROUPS
    if named:
        parts += [
            (name, row["bias"], row["ci"], palette[colour])
            for (name, row), colour in zip(groups.items(), map(theme.arm_colour, range(GROUPS)), strict=False)
        ]
    else:
        for k, name in enumerate(classes):
            values = [row["bias"][name] for row in groups.values()]
            ax.plot(np.full(len(values), k + 0.2), values, "o", color=palette["muted"], ms=3, alpha=0.5)
        ax.plot([], [], "o", color=palette["muted"], ms=3, label=f"one {attribute}")
    for offset, (name, bias, ci, colour) in zip(np.linspace(-0.2, 0.2, len(parts)), parts, strict=True):
        x_k = np.arange(len(classes)) + (offset if named else 0)
        ax.plot(x_k, [bias[k] for k in classes], "o", color=colour, ms=5, label=name)
        for x, k in zip(x_k, classes, strict=True):
            if ci[k]:
                ax.plot([x, x], ci[k], color=colour, lw=1.6)
    ax.axhline(0, color=palette["muted"], lw=0.8)
    ax.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    ax.set_xticks(range(len(classes)), classes)
    ax.set_ylabel("synthetic minus human share")
    ax.grid(axis="y")
    ax.legend(loc="best")
