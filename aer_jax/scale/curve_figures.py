"""The curves of `bench_curves` as SVG files: operations and memory of one device, both axes in powers of ten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aer_jax.reports.figures import light, style
from aer_jax.scale.bench_curves import rounded

FIGURES = {name: (name,) for name in ("seconds", "rows", "labels", "listeners")} | {"devices": ("data", "fsdp")}
PANELS = {"operations of one device, TFLOP": ("flops",), "memory of one device, GB": ("working", "held")}
UNITS = {"flops": 1e12, "working": 1e9, "held": 1e9}
DASHES = {"flops": "-", "working": "-", "held": "--"}


def write_curves(result: Mapping[str, Any], folder: Path) -> None:
    """curves.json, and one figure for each thing that is made larger; `folder` is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curves.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, lines in FIGURES.items():
        curves = {line: result["curves"][line] for line in lines if line in result["curves"]}
        if curves:
            _figure(curves, folder / f"{name}.svg")


def _figure(curves: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    palette = light()
    # The salt and the missing date make the same file of the same numbers.
    with matplotlib.rc_context(style(palette) | {"svg.hashsalt": "aer_jax"}):
        figure = Figure((7.0, 3.4 if len(curves) > 1 else 3.1), layout="constrained")
        axes = figure.subplots(1, len(PANELS))
        for ax, (title, costs) in zip(axes, PANELS.items(), strict=True):
            for i, (name, curve) in enumerate(curves.items()):
                for cost in costs:
                    _line(ax, curve, cost, name if len(curves) > 1 else "", palette[f"arm-{i}"], palette["muted"])
            ax.set_title(title, fontsize=9, loc="left")
            first, *others = curves.values()
            ax.set_xlabel("devices" if others else first["axis"])
            _scale(ax, first["sizes"])
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), handlelength=3, fontsize=7.5)
        figure.savefig(path, metadata={"Date": None})


def _line(ax: Axes, curve: Mapping[str, Any], cost: str, name: str, colour: str, muted: str) -> None:
    """A cost, with its exponent, and dotted the steepest that it may be."""
    sizes, values = np.array(curve["sizes"], float), np.array(curve[cost]) / UNITS[cost]
    most = curve["most"].get(cost)
    words = [name, "" if cost == "flops" else cost, f"exponent {rounded(curve['exponent'][cost])}"]
    label = " ".join(filter(None, words)) + ("" if most is None else f", at most {most:g}")
    ax.plot(sizes, values, "o", ls=DASHES[cost], color=colour, ms=3.5, lw=1.4, label=label)
    if most is not None:
        ax.plot(sizes, values[0] * (sizes / sizes[0]) ** most, ":", color=muted, lw=1)


def _scale(ax: Axes, sizes: Sequence[float]) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
    shown = [tick for tick in np.outer(decades, (1, 2, 3, 5, 7)).flat if low <= tick <= high]
    ax.set_yticks(shown, [f"{tick:g}" for tick in shown])
    ax.grid(visible=True)
    ax.tick_params(axis="y", labelcolor=ax.xaxis.label.get_color())
