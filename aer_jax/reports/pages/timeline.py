"""Timelines of long recordings: shares stacked over time, and ambiguity."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_bytes
from aer_jax.inference.prediction import Prediction, Window
from aer_jax.reports import theme
from aer_jax.reports.pages.page import write_page

KINDS = (".png", ".svg", ".html")
MOST = 20  # recordings in one picture
_HEIGHT = 2.6  # inches a recording


def check_figure(path: Path, recordings: int) -> None:
    """Refuse before anything is predicted.

    Raises:
        UserError: another kind of file, a folder that is not there, or too many recordings for a picture.
    """
    if path.suffix.lower() not in KINDS:
        raise UserError(f"a figure is {', '.join(KINDS)}, not {path.name}; choose another --figure.")
    if not path.absolute().parent.is_dir():
        raise UserError(
            f"there is no folder {path.absolute().parent} for the figure; make it, or choose another --figure."
        )
    if recordings > MOST and path.suffix.lower() != ".html":
        raise UserError(f"{recordings} recordings do not fit one picture; take an .html for more than {MOST}.")


def write_figure(predictions: Sequence[Prediction], out: Path) -> None:
    """Draw recordings, one per axes, as a picture or a self-contained page."""
    if out.suffix.lower() == ".html":
        classes = list(predictions[0].probs)
        colours = [theme.class_colour(k) for k in range(len(classes))]
        shown = [(prediction, _inline(prediction)) for prediction in predictions]
        write_page("timeline.html", {"shown": shown, "classes": list(zip(classes, colours, strict=True))}, out)
        return
    palette = theme.light()
    with matplotlib.rc_context(theme.style(palette) | {"svg.fonttype": "path"}):
        figure = Figure((8.0, _HEIGHT * len(predictions)), layout="constrained")
        axes = figure.subplots(2 * len(predictions), 1, height_ratios=[3, 1] * len(predictions))
        for i, prediction in enumerate(predictions):
            draw(prediction, axes[2 * i], axes[2 * i + 1], palette)
            axes[2 * i].set_title(prediction.file, loc="left", fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        try:
            content = io.BytesIO()
            figure.savefig(content, format=out.suffix.lower()[1:], dpi=200)
            replace_bytes(out, content.getvalue())
        except OSError as error:
            raise UserError(f"cannot write the figure {out}: {error.strerror}; choose another --figure.") from None


def draw(prediction: Prediction, shares: Axes, level: Axes, palette: Mapping[str, str]) -> None:
    """Shares stacked above, ambiguity below; a silent window is a gap."""
    classes = list(prediction.probs)
    parts = prediction.timeline or [Window(0.0, prediction.seconds, prediction.probs, prediction.ambiguity)]
    edges, probs_wk, ambiguity_w = _steps(parts, len(classes))
    top_wk = np.cumsum(probs_wk, axis=1)
    for k, name in enumerate(classes):
        below_w, colour = top_wk[:, k] - probs_wk[:, k], palette[theme.class_colour(k)]
        shares.stairs(top_wk[:, k], edges, baseline=below_w, fill=True, color=colour, lw=0, label=name)
    level.stairs(ambiguity_w, edges, baseline=None, color=palette["ink"], lw=1.2)
    for ax, name in ((shares, "share of listeners"), (level, "ambiguity")):
        ax.set_xlim(0, prediction.seconds)
        ax.set_ylim(0, 1)
        ax.set_yticks([0, 1])
        ax.set_ylabel(name)
        ax.tick_params(length=0, labelcolor=palette["muted"])
    shares.tick_params(labelbottom=False)
    level.grid(axis="y")
    level.set_xlabel("seconds")


def _inline(prediction: Prediction) -> Markup:
    with matplotlib.rc_context(theme.style(theme.PLACEHOLDERS)):
        figure = Figure((8.0, _HEIGHT), layout="constrained")
        shares, level = figure.subplots(2, 1, height_ratios=[3, 1])
        draw(prediction, shares, level, theme.PLACEHOLDERS)
        return theme.svg(figure, f"shares and ambiguity over time in {prediction.file}")


def _steps(parts: Sequence[Window], classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges and values of a step function: where windows overlap, the border lies midway between their middles."""
    middle_w = np.array([(part.start + part.end) / 2 for part in parts])
    edges = np.concatenate([[parts[0].start], (middle_w[1:] + middle_w[:-1]) / 2, [parts[-1].end]])
    nothing = [np.nan] * classes
    probs_wk = np.array([list(part.probs.values()) if part.probs else nothing for part in parts])
    ambiguity_w = np.array([np.nan if part.ambiguity is None else part.ambiguity for part in parts])
    return edges, probs_wk, ambiguity_w
