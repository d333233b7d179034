"""Figures of the studies, as SVG files that stand alone on light or dark paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aer_jax.evaluation.ambiguity import EDGES, NAMES, ambiguity_bins
from aer_jax.evaluation.raters.thinning import PRIOR
from aer_jax.reports import theme

PALETTE = theme.light()
_STYLE = theme.style(PALETTE) | {"axes.grid": True, "axes.axisbelow": True}
_MUTED, _INK = PALETTE["muted"], PALETTE["ink"]
_COLOURS = [PALETTE[theme.arm_colour(i)] for i in range(4)]


def raters_figure(result: Mapping[str, Any], path: Path) -> None:
    """JS of few votes, alone, smoothed, and with each proxy, to the votes held back; a panel per level of ambiguity."""
    levels = result["levels"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((2.6 * len(levels), 3.2), layout="constrained")
        axes = figure.subplots(1, len(levels), squeeze=False)[0]
        for ax, (level, part) in zip(axes, levels.items(), strict=True):
            m = np.arange(result["raters"] + 1)
            ax.plot(m[1:], part["js"]["votes"], "o-", color=_INK, ms=3.5, lw=1.2, label="human votes alone")
            ax.plot(m, part["js"][PRIOR], "s--", color=_MUTED, ms=3, lw=1, label=f"smoothed by the {PRIOR}")
            proxies = [name for name in part["js"] if name not in ("votes", PRIOR)]
            for name, colour in zip(proxies, _COLOURS, strict=False):
                ax.plot(m, part["js"][name], "o-", color=colour, ms=3.5, lw=1.4, label=f"with {name}")
            ax.set_title(f"{level}: {part['n']} clips" if level != "all" else f"all {part['n']} clips", fontsize=9)
        _finish(figure, axes, "human raters", "JS to the votes held back (base 2)", path)


def reliability_figure(result: Mapping[str, Any], path: Path) -> None:
    """JS of n raters to the votes held back, one line per level of ambiguity."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((4.6, 3.2), layout="constrained")
        ax = figure.add_subplot()
        for (level, part), colour in zip(result["levels"].items(), (_INK, *_COLOURS), strict=False):
            values = part["js"]["votes"]
            ax.plot(
                np.arange(1, len(values) + 1), values, "o-", color=colour, ms=3.5, label=f"{level} ({part['n']} clips)"
            )
        ax.set_xticks(np.arange(1, result["raters"] + 1))
        _finish(figure, [ax], "human raters", "JS to the votes held back (base 2)", path)


def levels_figure(ambiguity_n: np.ndarray, path: Path) -> None:
    """How ambiguous the clips are: entropy over log K, with the levels' edges and sizes."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((4.6, 2.6), layout="constrained")
        ax = figure.add_subplot()
        ax.hist(ambiguity_n, bins=np.linspace(0, 1, 31).tolist(), color=_COLOURS[0])
        size_b = np.bincount(ambiguity_bins(ambiguity_n), minlength=len(NAMES))
        for left, right, name, size in zip((0.0, *EDGES), (*EDGES, 1.0), NAMES, size_b, strict=True):
            ax.text(
                (left + right) / 2,
                1.0,
                f"{name}: {size}",
                ha="center",
                va="bottom",
                transform=ax.get_xaxis_transform(),
            )
        for edge in EDGES:
            ax.axvline(edge, color=_MUTED, lw=0.8, ls="--")
        ax.set_xlim(0, 1)
        ax.set_xlabel("entropy of the human votes over log K")
        ax.set_ylabel("clips")
        theme.save(figure, path)


def toy_truth_figure(result: Mapping[str, Any], path: Path) -> None:
    """JS to the truth against the number of human votes; a panel per bias of the synthetic listeners."""
    biases = result["biases"]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((2.7 * len(biases), 3.1), layout="constrained")
        axes = figure.subplots(1, len(biases), sharey=True, squeeze=False)[0]
        n = result["synthetic"]
        for ax, (bias, row) in zip(axes, biases.items(), strict=True):
            ax.plot(result["human"], row["human"], "o-", color=_INK, ms=3.5, lw=1.2, label="human votes alone")
            ax.plot(
                result["human"], row["pooled"], "o-", color=_COLOURS[1], ms=3.5, label=f"+ {n} synthetic, vote for vote"
            )
            best = row["pooled, best weight"]
            ax.plot(result["human"], best, "s--", color=_COLOURS[0], ms=3, lw=1, label=f"+ {n} synthetic, best weight")
            ax.axhline(row["synthetic"], color=_MUTED, lw=1, ls=":", label=f"{n} synthetic alone")
            ax.set_title("unbiased" if float(bias) == 0 else f"{float(bias):.0%} always neutral", fontsize=9)
            ax.set_xscale("log")
            ax.set_xticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
            ax.minorticks_off()
        _finish(figure, axes, "human votes", "JS to the truth (base 2)", path)


def _finish(figure: Figure, axes: Sequence[Axes], x: str, y: str, path: Path) -> None:
    for ax in axes:
        ax.set_ylim(bottom=0)
        ax.set_xlabel(x)
    axes[0].set_ylabel(y)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    theme.save(figure, path)
