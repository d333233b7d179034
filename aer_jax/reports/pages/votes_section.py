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
        (baseline.label, row["js"], span(row.get("ci", {}).get("js"), row.get("n_speakers", speakers)))
        for key, baseline in BASELINES.items()
        if (row := found.get("baselines", {}).get(key)) and row["js"] is not None
    ]
    return {
        "found": found,
        "model": Path(found["model"]).name,  # the page is sent around: no one's folders
        "rows": rows,
        "saturation": _figure(votes_figure.saturation, found, "JS divergence by the number of synthetic votes"),
        "bias": _figure(votes_figure.bias, found, "labels that synthetic votes use more or less often than people"),
    }


def _figure(panel: Callable, found: dict[str, Any], label: str) -> Markup:
    with matplotlib.rc_context(theme.style(theme.PLACEHOLDERS)):
        figure = Figure((theme.WIDTH, 3.0), layout="constrained")
        ax = figure.add_subplot()
        panel(ax, found, theme.PLACEHOLDERS)
        theme.bare(ax, "left")
        return theme.svg(figure, label)
