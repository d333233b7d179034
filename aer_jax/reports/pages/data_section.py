"""A report's section on its dataset: splits, votes, ambiguity."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from aer_jax.data.dataset import Dataset
from aer_jax.evaluation.ambiguity import EDGES, NAMES, ambiguity, ambiguity_bins
from aer_jax.labels.votes import normalise
from aer_jax.reports import theme

_BINS = 12


def data_section(dataset: Dataset) -> dict[str, Any]:
    """Rows of the splits, shares of the classes, and the figure of ambiguity."""
    rows, levels = [], {}
    human = dataset.votes.human
    for split, ids in dataset.splits.items():
        if not ids:
            continue
        counts_nk = human.counts(ids, dataset.classes)
        shares_nk = normalise(counts_nk[counts_nk.sum(axis=1) > 0])
        levels[split] = ambiguity(shares_nk)
        bins = np.bincount(ambiguity_bins(levels[split]), minlength=len(NAMES))
        rows.append(
            {
                "split": split,
                "clips": len(ids),
                "speakers": len({dataset.utterances[id].speaker for id in ids}),
                "minutes": sum(dataset.utterances[id].seconds for id in ids) / 60,
                "votes": float(counts_nk.sum(axis=1).mean()),
                "ambiguity": float(levels[split].mean()),
                "bins": [int(n) for n in bins],
                "unanimous": float((levels[split] < 1e-9).mean()),
                "shares": list(zip(dataset.classes, shares_nk.mean(axis=0).tolist(), strict=True)),
            }
        )
    return {"rows": rows, "ambiguity": _ambiguity(np.concatenate(list(levels.values())))}


def _ambiguity(level_n: np.ndarray):
    with matplotlib.rc_context(theme.style(theme.PLACEHOLDERS)):
        figure = Figure((theme.WIDTH, 2.2), layout="constrained")
        ax = figure.add_subplot()
        ax.hist(level_n, bins=_BINS, range=(0, 1), color=theme.MUTED, rwidth=0.92)
        for edge in EDGES:
            ax.axvline(edge, color=theme.INK, lw=0.8, ls=(0, (3, 3)))
        for name, left, right in zip(NAMES, (0, *EDGES), (*EDGES, 1), strict=True):
            ax.text((left + right) / 2, 1.02, name, transform=ax.get_xaxis_transform(), ha="center", color=theme.MUTED)
        ax.set_xlim(-0.01, 1.01)
        ax.set_xlabel("ambiguity of the human votes, H / log K")
        ax.set_ylabel("clips")
        ax.tick_params(length=0)
        ax.tick_params(axis="y", labelcolor=theme.MUTED)
        ax.spines["left"].set_visible(False)
        return theme.svg(figure, "how many clips are how ambiguous")
