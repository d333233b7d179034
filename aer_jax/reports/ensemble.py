"""Ensemble of runs of several seeds, adapters or recipes: the mean of their predictions.

A deep ensemble (Lakshminarayanan et al., 2017, arXiv 1612.01474) of adapters over one frozen base costs no training
beyond runs that exist. Its divergence from the listeners is at most the mean of its members' (JS is convex), so the
question is how much it is below that, and whether it is below the best member's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.errors import UserError
from aer_jax.evaluation.intervals import not_available, speaker_intervals
from aer_jax.evaluation.metrics import pointwise
from aer_jax.evaluation.pooled import pooled
from aer_jax.evaluation.predictions import shares, write_predictions
from aer_jax.files import tables
from aer_jax.files.atomic import plain
from aer_jax.files.tables import number
from aer_jax.reports.runs import load_runs
from aer_jax.reports.table import TIES

ENSEMBLE = "ensemble"
SHOWN = ("js", "bc", "ece_soft", "ece", "accuracy", "accuracy_argmax")


def ensemble(paths: Sequence[Path], split: str = "test", out: Path | None = None) -> dict[str, Any]:
    """Score the mean of evaluated runs' predictions next to each of them.

    Args:
        paths: run directories, at least two, evaluated on the same utterances.
        split: which of their evaluations.
        out: a file for the mean's predictions, JSON lines {id, speaker, probs}; None writes none.

    Returns:
        rows: name -> the metrics of SHOWN, each member's and the `ensemble`'s.
        gain: by how much JS and BC of the ensemble are better than its members' mean, with intervals over speakers.
        n, n_speakers, split.

    Raises:
        UserError: as `load_runs`; or it is one run.
    """
    if len(paths) < 2:
        raise UserError("an ensemble has at least two runs; name more with --run.")
    runs = load_runs(paths, split)
    classes = runs[0].metrics["classes"]
    lines = [sorted(run.predictions, key=lambda line: line["id"]) for run in runs]
    references_nk = shares(lines[0], "reference", classes)
    speakers_n = np.array([line["speaker"] for line in lines[0]])
    probs_mnk = np.array([shares(member, "probs", classes) for member in lines])
    mean_nk = probs_mnk.mean(axis=0)

    predictors = {run.name: probs_nk for run, probs_nk in zip(runs, probs_mnk, strict=True)} | {ENSEMBLE: mean_nk}
    values = {name: pointwise(references_nk, probs_nk) for name, probs_nk in predictors.items()}
    rows = {
        name: {quantity: float(values_n.mean()) for quantity, values_n in values[name].items()}
        | pooled(references_nk, probs_nk)
        for name, probs_nk in predictors.items()
    }
    gains = {}
    for quantity, sign in (("js", -1), ("bc", 1)):
        members_n = np.mean([values[run.name][quantity] for run in runs], axis=0)
        gains[quantity] = sign * (values[ENSEMBLE][quantity] - members_n)
    intervals = speaker_intervals(gains, speakers_n)
    if out is not None:
        write_predictions(out, [line["id"] for line in lines[0]], speakers_n.tolist(), classes, mean_nk)
    return plain(
        {
            "rows": {name: {quantity: row[quantity] for quantity in SHOWN} for name, row in rows.items()},
            "gain": {name: {"mean": float(gain_n.mean()), "ci": intervals[name]} for name, gain_n in gains.items()},
            "n": len(speakers_n),
            "n_speakers": len(np.unique(speakers_n)),
            "split": split,
        }
    )


def table(result: dict[str, Any]) -> str:
    """The result of `ensemble` as a table."""
    lines = [["", *SHOWN]]
    lines += [[name, *(number(row[quantity], 4) for quantity in SHOWN)] for name, row in result["rows"].items()]
    gain = result["gain"]["js"]
    ends = gain["ci"]
    within = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else not_available(result["n_speakers"])
    return "\n".join(
        [
            tables.text(lines),
            TIES,
            f"JS below the members' mean by {gain['mean']:.4f} (95% over speakers: {within}); {result['n']} clips of "
            f"{result['n_speakers']} speakers",
        ]
    )
