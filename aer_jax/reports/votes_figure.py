"""A journal's quality on disk: proxies.json, and one figure of four panels."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_bytes, replace_text

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

_INK, _MUTED, _RULE = "#1c2430", "#5b6470", "#d8dde3"
_SYNTHETIC, _EXACT, _HUMAN, _FIT = "#2f6db5", "#d98a29", "#3f9a6c", "#9a6bb5"
_GROUPS = ("#2f6db5", "#d98a29", "#3f9a6c", "#9a6bb5")
_STYLE: dict[RcKeyType, Any] = {
    "font.size": 9,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,
}


def write_quality(folder: Path, found: dict[str, Any]) -> Path:
    """Write proxies.json and proxies.png into `folder`.

    Args:
        found: what `proxies.quality.quality` returned.

    Returns:
        the figure's path.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / "proxies.json", json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        content = io.BytesIO()
        draw(found).savefig(content, format="png", dpi=160)
        replace_bytes(folder / "proxies.png", content.getvalue())
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}); choose another --out.") from None
    return folder / "proxies.png"


def draw(found: dict[str, Any]) -> Figure:
    """Saturation, agreement, ambiguity, bias."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((10.5, 7.4), layout="constrained")
        figure.suptitle(
            f"{found['dataset']}: {found['listeners']} synthetic listeners of {found['model']} ({found['answers']} "
            f"answers, {found['unparsed_share']:.1%} unparsed) against people, {found['utterances']} utterances",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        panels = figure.subplots(2, 2)
        for ax, panel in zip(panels.flat, (_saturation, _agreement, _ambiguity, _bias), strict=True):
            panel(ax, found)
            ax.tick_params(length=0)
        return figure


def _saturation(ax: Axes, found: dict[str, Any]) -> None:
    curve = found["saturation"]
    js_m = np.array(curve["js"])
    n_m = np.arange(1, len(js_m) + 1)
    if all(curve["ci"]):
        low_m, high_m = np.array(curve["ci"]).T
        ax.fill_between(n_m, low_m, high_m, color=_SYNTHETIC, alpha=0.15, lw=0)
    ax.plot(n_m, js_m, "o", ms=4, color=_SYNTHETIC, label="synthetic votes, 95 % over speakers")
    fine = np.linspace(1, max(len(js_m), 2), 200)
    if fit := curve["exponential"]:
        label = f"a - b exp(-c N), 90 % at N = {fit['n_gain']:.1f}"
        ax.plot(fine, fit["a"] - fit["b"] * np.exp(-fit["c"] * fine), color=_FIT, lw=1.2, label=label)
    if fit := curve["inverse"]:
        far = fine[fine >= 2]
        label = f"a + b / N, N without end: {fit['a']:.3f}"
        ax.plot(far, fit["a"] + fit["b"] / far, color=_MUTED, lw=1, ls="--", label=label)
    if curve["exact"] and curve["exact"]["js"] is not None:
        label = f"exact proxy, N without end: {curve['exact']['js']:.3f}"
        ax.axhline(curve["exact"]["js"], color=_EXACT, lw=1.4, label=label)
    if half := found["baselines"].get("split_half"):
        ax.axhline(half["js"], color=_HUMAN, lw=1, ls=":", label="half the people against the other half")
    ax.set(title=f"How many are enough ({curve['n_utterances']} utterances)", xlabel="synthetic votes an utterance")
    ax.set_ylabel("JS divergence (base 2)")
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    ax.grid(axis="y")
    ax.legend(loc="best")


def _agreement(ax: Axes, found: dict[str, Any]) -> None:
    names = {"uniform": "uniform", "best_constant": "best constant", "split_half": "half the people vs half"}
    rows = [("synthetic votes", found, _SYNTHETIC)]
    if found["exact"]:
        rows.append(("exact proxy", found["exact"], _EXACT))
    rows += [(name, found["baselines"][k], _MUTED) for k, name in names.items() if k in found["baselines"]]
    for y, (_, row, colour) in enumerate(rows):
        if row["ci"]["js"]:
            ax.plot(row["ci"]["js"], [y, y], color=colour, lw=2)
        ax.plot(row["js"], y, "o", color=colour, ms=6)
        ax.annotate(f"{row['js']:.3f}", (row["js"], y), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    y = len(rows)
    ax.plot(found["js_shuffled"], y, "x", color=_MUTED, ms=6)
    ax.annotate(f"p = {found['p_shuffled']:.3f}", (found["js_shuffled"], y), (0, 7), textcoords="offset points",
                ha="center", fontsize=8)  # fmt: skip
    ax.set_yticks(range(y + 1), [name for name, *_ in rows] + ["synthetic, shuffled"])
    ax.set_ylim(y + 0.5, -0.7)
    ax.set_xlim(left=0)
    ax.set(title="Agreement with people", xlabel="JS divergence (base 2), lower is better")
    ax.grid(axis="x")


def _ambiguity(ax: Axes, found: dict[str, Any]) -> None:
    marks = {"uniform": ("x", "uniform"), "best_constant": ("D", "best constant"), "split_half": ("s", "half vs half")}
    rows = list(found["by_ambiguity"].items())
    for x, (_, row) in enumerate(rows):
        if row["js"] is None:
            continue
        if row["ci"]["js"]:
            ax.plot([x, x], row["ci"]["js"], color=_SYNTHETIC, lw=2)
        ax.plot(x, row["js"], "o", color=_SYNTHETIC, ms=6)
        for place, (key, (mark, _)) in zip((0.14, 0.22, 0.3), marks.items(), strict=True):
            if row["baselines"][key]["js"] is not None:
                ax.plot(x + place, row["baselines"][key]["js"], mark, mfc="white", mec=_MUTED, ms=5)
    ax.plot([], [], "o", color=_SYNTHETIC, label="synthetic votes")
    for mark, name in marks.values():
        ax.plot([], [], mark, mfc="white", mec=_MUTED, ms=5, label=name)
    ax.set_xticks(range(len(rows)), [f"{name}\n{row['n']} clips" for name, row in rows])
    ax.set_xlim(-0.5, len(rows) - 0.4)
    ax.set_ylim(bottom=-0.015)
    ax.set(title="By ambiguity of the human votes", ylabel="JS divergence (base 2)")
    ax.grid(axis="y")
    ax.legend(loc="best", ncols=2)


def _bias(ax: Axes, found: dict[str, Any]) -> None:
    classes, groups = found["classes"], found["groups"]["rows"]
    of_all, ci_of_all = ({k: found["by_class"][k][what] for k in classes} for what in ("bias", "ci"))
    parts = [("all", of_all, ci_of_all, _INK)]
    named = 1 < len(groups) <= len(_GROUPS)
    if named:
        parts += [
            (name, row["bias"], row["ci"], colour) for (name, row), colour in zip(groups.items(), _GROUPS, strict=False)
        ]
    else:
        for k, name in enumerate(classes):
            each = [row["bias"][name] for row in groups.values()]
            ax.plot(np.full(len(each), k + 0.2), each, "o", color=_MUTED, ms=3, alpha=0.5)
        ax.plot([], [], "o", color=_MUTED, ms=3, label=f"each {found['groups']['attribute']}")
    for offset, (name, bias, ci, colour) in zip(np.linspace(-0.2, 0.2, len(parts)), parts, strict=True):
        x_k = np.arange(len(classes)) + (offset if named else 0)
        ax.plot(x_k, [bias[k] for k in classes], "o", color=colour, ms=5, label=name)
        for x, k in zip(x_k, classes, strict=True):
            if ci[k]:
                ax.plot([x, x], ci[k], color=colour, lw=1.6)
    ax.axhline(0, color=_MUTED, lw=0.8)
    ax.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    ax.set_xticks(range(len(classes)), classes)
    ax.set(title="Labels used too often (above 0) or too seldom", ylabel="synthetic minus human share")
    ax.grid(axis="y")
    ax.legend(loc="best")
