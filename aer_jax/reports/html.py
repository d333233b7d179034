"""The report: one HTML page from evaluated runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.ambiguity import NAMES
from aer_jax.evaluation.baselines import NOTES
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.reports import figures, table
from aer_jax.reports.page import write_page
from aer_jax.reports.runs import Run, best, load_runs

_CLIPS = 5  # shown of the worst and of the best each


def write_report(runs: Sequence[Path], out: Path, split: str = "test") -> None:
    """Write the page about evaluated runs, whole or not at all.

    Raises:
        UserError: as `load_runs`; or `out` cannot be written.
    """
    write_page("template.html", _content(load_runs(runs, split)), out)


def _content(runs: list[Run]) -> dict[str, Any]:
    rows = table.rows(runs)
    arms = [row for row in rows if row.arm is not None]
    leader = best(runs)
    transcripts, why_not = _transcripts(leader)
    return {
        "runs": runs,
        "metrics": runs[0].metrics,
        "finding": table.finding(runs),
        "shared": table.SHARED,
        "rows": rows,
        "columns": table.COLUMNS,
        "leading": {column: _leading(arms, column) for column in table.COLUMNS},
        "bins": NAMES,
        "baseline_notes": [(name, NOTES[key]) for key, name in table.BASELINES.items()],
        "colours": [figures.arm_colour(i) for i in range(len(runs))],
        "divergence": figures.divergence(rows),
        "by_ambiguity": figures.by_ambiguity(rows),
        "curves": figures.training_curves(runs),
        "mean_distributions": figures.mean_distributions(runs),
        "calibration": figures.calibration(runs),
        "settings": _settings(runs),
        "leader": leader,
        "leader_colour": figures.arm_colour(runs.index(leader)),
        "clips": _clips(leader),
        "transcripts": transcripts,
        "why_no_transcripts": why_not,
    }


def _leading(arms: Sequence[table.Row], column: str) -> float | None:
    """The best value of a column among several arms; None where there is nothing to compare."""
    values = [row.values[column] for row in arms if row.values[column] is not None]
    if len(arms) < 2 or not values:
        return None
    return min(values) if table.COLUMNS[column][1] else max(values)


def _clips(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The clips with the largest and the smallest JS of a run, each beside the training mean's JS."""
    classes = run.metrics["classes"]
    trained = run.metrics["baselines"]["train_mean"]["distribution"]
    trained_k = np.array([trained[name] for name in classes])
    clips = []
    for line in run.predictions:
        probs_k, reference_k = (np.array([line[key][name] for name in classes]) for key in ("probs", "reference"))
        clips.append(
            {
                "id": line["id"],
                "speaker": line["speaker"],
                "js": float(js_divergence(reference_k, probs_k)),
                "train_mean": float(js_divergence(reference_k, trained_k)),
                "bars": list(zip(classes, reference_k.tolist(), probs_k.tolist(), strict=True)),
            }
        )
    clips.sort(key=lambda clip: clip["js"])
    shown = min(_CLIPS, len(clips) // 2)
    return {"largest": clips[::-1][:shown], "smallest": clips[:shown]}


def _transcripts(run: Run) -> tuple[dict[str, str], str | None]:
    """Transcripts by id, or none and the reason why the page shows none."""
    try:
        dataset = open_dataset(run.config.data.dataset)
    except UserError:
        return {}, "Transcripts are not shown: the dataset that the run names cannot be opened here."
    if dataset.licensed:
        return {}, "Transcripts are not shown: the corpus's licence forbids passing its text on."
    return {id: utterance.transcript for id, utterance in dataset.utterances.items()}, None


def _settings(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What distinguishes the arms: (heading, a cell for each run)."""
    return [
        ("Learned from", [table.learned_from(run.config.labels) + " votes" for run in runs]),
        ("Journal", [_last(run.config.labels.journal) for run in runs]),
        ("DiME-Aug ratio", [f"{r:g}" if (r := run.config.data.dime_aug.ratio) else "off" for run in runs]),
        ("Recipe", [run.config.recipe for run in runs]),
        ("Base checkpoint", [_last(run.config.model.checkpoint) for run in runs]),
        ("Head", [run.config.model.head for run in runs]),
        ("LoRA rank", [str(run.config.model.lora.rank) for run in runs]),
        ("Epochs run / allowed", [f"{_most(run, 'epoch')} / {run.config.train.epochs}" for run in runs]),
        ("Optimizer steps", [_most(run, "step") for run in runs]),
        ("Batch", [str(run.config.train.batch) for run in runs]),
        ("Seed", [str(run.config.seed) for run in runs]),
        ("Device", [_device(run.environment) for run in runs]),
        ("JAX", [run.environment.get("packages", {}).get("jax", table.NONE) for run in runs]),
    ]


def _last(path: str | None) -> str:
    # The page is sent around: the last part of a path names the thing without telling where somebody keeps it.
    return Path(path).name if path else table.NONE


def _most(run: Run, key: str) -> str:
    values = [line[key] for line in run.log if line.get(key) is not None]
    return f"{max(values):g}" if values else table.NONE


def _device(environment: dict[str, Any]) -> str:
    count, kind = environment.get("devices", 1), environment.get("device", table.NONE)
    return kind if count == 1 else f"{count} x {kind}"
