"""A report's section on synthetic votes: agreement with human votes, saturation, bias.

All of it is read from proxies.json, which `aer-jax proxies --out` writes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from aer_jax.errors import UserError
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.evaluation.intervals import MIN_SPEAKERS
from aer_jax.files.json_text import parse_json
from aer_jax.files.tables import NONE
from aer_jax.reports import theme, votes_figure
from aer_jax.reports.table import span

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


def proxy_section(path: Path, classes: list[str]) -> dict[str, Any]:
    """The section's content.

    Raises:
        UserError: the file is missing, damaged, or about other classes than the runs.
    """
    path = path / "proxies.json" if path.is_dir() else path
    again = "write it with `aer-jax proxies --out FOLDER`"
    try:
        quality = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {again}.") from None
    except ValueError:
        raise UserError(f"{path} is not JSON; {again}.") from None
    if not isinstance(quality, dict) or (missing := sorted(_NEEDED - set(quality))):
        raise UserError(f"{path} lacks {', '.join(missing) if isinstance(quality, dict) else 'everything'}; {again}.")
    if quality["classes"] != classes:
        raise UserError(
            f"{path} is about {', '.join(quality['classes'])}, the runs about {', '.join(classes)}; give the one of "
            "their journal."
        )
    speakers = quality.get("speakers", MIN_SPEAKERS)
    rows = [("Synthetic votes", quality["js"], span(quality["ci"]["js"], speakers))]
    if exact := quality.get("exact"):
        rows.append(("Exact proxy", exact["js"], span(exact["ci"]["js"], speakers)))
    rows.append(("Synthetic votes, shuffled over clips", quality["js_shuffled"], NONE))
    rows += [
        (baseline.label, row["js"], span(row.get("ci", {}).get("js"), row.get("n_speakers", speakers)))
        for key, baseline in BASELINES.items()
        if (row := quality.get("baselines", {}).get(key)) and row["js"] is not None
    ]
    return {
        "quality": quality,
        "model": Path(quality["model"]).name,  # the page is sent around: no one's folders
        "rows": rows,
        "saturation": _figure(votes_figure.saturation, quality, "JS divergence by the number of synthetic votes"),
        "bias": _figure(votes_figure.bias, quality, "labels that synthetic votes use more or less often than raters"),
    }


def _figure(panel: Callable, quality: dict[str, Any], label: str) -> Markup:
    with matplotlib.rc_context(theme.style(theme.PLACEHOLDERS)):
        figure = Figure((theme.WIDTH, 3.0), layout="constrained")
        ax = figure.add_subplot()
        panel(ax, quality, theme.PLACEHOLDERS)
        theme.bare(ax, "left")
        return theme.svg(figure, label)
