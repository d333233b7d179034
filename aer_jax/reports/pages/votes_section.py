"""What a report says of synthetic votes: how near they come to people, how many are enough, what they hear too often.

All of it is read from proxies.json, which `aer-jax proxies --out` writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from aer_jax.errors import UserError
from aer_jax.evaluation.intervals import MIN_SPEAKERS
from aer_jax.files.json_text import parse_json
from aer_jax.reports.pages import figures
from aer_jax.reports.table import NONE, span

_NEEDED = {
    "model",
    "classes",
    "utterances",
    "js",
    "ci",
    "js_shuffled",
    "p_shuffled",
    "saturation",
    "by_class",
}
_ROWS = {"uniform": "Uniform", "best_constant": "Best constant (oracle)", "split_half": "Half the listeners vs half"}


def proxy_section(path: Path, classes: list[str]) -> dict[str, Any]:
    """The section's content.

    Raises:
        UserError: the file is missing, damaged, or about other classes than the runs.
    """
    path = path / "proxies.json" if path.is_dir() else path
    again = "write it with `aer-jax proxies --out FOLDER`"
    try:
        found = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {again}.") from None
    except ValueError:
        raise UserError(f"{path} is not JSON; {again}.") from None
    if not isinstance(found, dict) or (missing := sorted(_NEEDED - set(found))):
        raise UserError(f"{path} lacks {', '.join(missing) if isinstance(found, dict) else 'everything'}; {again}.")
    if found["classes"] != classes:
        raise UserError(
            f"{path} is about {', '.join(found['classes'])}, the runs about {', '.join(classes)}; give the one of "
            "their journal."
        )
    speakers = found.get("speakers", MIN_SPEAKERS)
    rows = [("Synthetic votes", found["js"], span(found["ci"]["js"], speakers))]
    if exact := found.get("exact"):
        rows.append(("Exact proxy", exact["js"], span(exact["ci"]["js"], speakers)))
    rows.append(("Synthetic votes, shuffled over clips", found["js_shuffled"], NONE))
    rows += [
        (name, row["js"], span(row.get("ci", {}).get("js"), row.get("n_speakers", speakers)))
        for key, name in _ROWS.items()
        if (row := found.get("baselines", {}).get(key)) and row["js"] is not None
    ]
    return {
        "found": found,
        "model": Path(found["model"]).name,  # the page is sent around: no one's folders
        "rows": rows,
        "saturation": _saturation(found["saturation"], found.get("baselines", {}).get("split_half")),
        "bias": _bias(found),
    }


def _saturation(curve: dict[str, Any], half: dict[str, Any] | None) -> Markup:
    js_m = np.array(curve["js"])
    n_m = np.arange(1, len(js_m) + 1)
    colour = figures.PLACEHOLDERS["synthetic"]
    with matplotlib.rc_context(figures.style(figures.PLACEHOLDERS)):
        figure = Figure((figures.WIDTH, 3.0), layout="constrained")
        ax = figure.add_subplot()
        if all(curve["ci"]):
            low_m, high_m = np.array(curve["ci"]).T
            ax.vlines(n_m, low_m, high_m, color=colour, lw=1.4)
        ax.plot(n_m, js_m, "o", ms=5, color=colour, label="synthetic votes")
        fine = np.linspace(1, max(len(js_m), 2), 200)
        if fit := curve.get("exponential"):
            fitted = fit["a"] - fit["b"] * np.exp(-fit["c"] * fine)
            ax.plot(fine, fitted, color=figures.INK, lw=1, label="a - b exp(-c N)")
        if fit := curve.get("inverse"):
            far = fine[fine >= 2]
            ax.plot(far, fit["a"] + fit["b"] / far, color=figures.MUTED, lw=1, ls="--", label="a + b / N")
        if half and half["js"] is not None:
            ax.axhline(half["js"], color=figures.MUTED, lw=1, ls=":", label="half the people vs half")
        ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
        ax.set_xlabel("synthetic votes a clip")
        ax.set_ylabel("JS to the human votes")
        ax.tick_params(length=0)
        ax.tick_params(axis="y", labelcolor=figures.MUTED)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="y")
        figure.legend(loc="outside upper left", ncols=2)
        return figures.svg(figure, "JS divergence by the number of synthetic votes")


def _bias(found: dict[str, Any]) -> Markup:
    classes = found["classes"]
    colour = figures.PLACEHOLDERS["synthetic"]
    with matplotlib.rc_context(figures.style(figures.PLACEHOLDERS)):
        figure = Figure((figures.WIDTH, 0.7 + 0.34 * len(classes)), layout="constrained")
        ax = figure.add_subplot()
        for k, name in enumerate(classes):
            row = found["by_class"][name]
            ax.barh(k, row["bias"], height=0.5, color=colour)
            if row["ci"]:
                ax.plot(row["ci"], [k, k], color=figures.INK, lw=1.2)
        ax.axvline(0, color=figures.INK, lw=0.8)
        ax.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
        ax.set_yticks(range(len(classes)), classes)
        ax.set_ylim(len(classes) - 0.5, -0.5)
        ax.set_xlabel("synthetic minus human share")
        ax.tick_params(length=0)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        return figures.svg(figure, "labels that synthetic votes use more or less often than people")
