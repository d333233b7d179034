"""The report: one HTML page from evaluated runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.ambiguity import NAMES
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.evaluation.predictions import human_distributions, shares
from aer_jax.files.provenance import provenance
from aer_jax.files.tables import NONE
from aer_jax.reports import table, theme
from aer_jax.reports.finding import few_speakers, finding
from aer_jax.reports.pages import figures
from aer_jax.reports.pages.data_section import data_section
from aer_jax.reports.pages.explorer import AUDIO_MB, explorer, in_script
from aer_jax.reports.pages.page import write_page
from aer_jax.reports.pages.votes_section import proxy_section
from aer_jax.reports.runs import EvaluatedRun, best, load_runs

NOT_RECORDED = "not recorded"


def write_report(
    runs: Sequence[Path],
    out: Path,
    split: str = "test",
    proxies: Path | None = None,
    audio_mb: float = AUDIO_MB,
) -> None:
    """Write the page about evaluated runs, whole or not at all.

    Args:
        runs: run directories, evaluated on the same data.
        out: the page.
        split: which evaluation.
        proxies: proxies.json, or the folder that holds it, for the section about synthetic votes.
        audio_mb: how much audio it may carry, in megabytes; 0 for none. A licensed corpus' audio and words stay away.

    Raises:
        UserError: as `load_runs` and `proxy_section`; or `out` cannot be written.
    """
    if not 0 <= audio_mb <= 1000:
        raise UserError(f"--audio is {audio_mb:g}; it is in megabytes, 0 for none, 1000 at most.")
    write_page("template.html", _content(load_runs(runs, split), proxies, audio_mb), out)


def _content(runs: list[EvaluatedRun], proxies: Path | None, audio_mb: float) -> dict[str, Any]:
    rows = table.rows(runs)
    arms = [row for row in rows if row.arm is not None]
    leader = best(runs)
    dataset = _dataset(leader)
    clips, left_out = explorer(runs, leader, dataset, audio_mb)
    return {
        "runs": runs,
        "metrics": runs[0].metrics,
        "finding": finding(runs),
        "few_speakers": few_speakers(runs[0].metrics["n_speakers"]),
        "made": provenance(),
        "shared": table.SHARED,
        "ties": table.TIES,
        "rows": rows,
        "columns": table.COLUMNS,
        "leading": {column: _leading(arms, column) for column in table.COLUMNS},
        "bins": NAMES,
        "baseline_notes": [
            (baseline.label, baseline.note)
            for key, baseline in BASELINES.items()
            if key in runs[0].metrics["baselines"]
        ],
        "colours": [theme.arm_colour(i) for i in range(len(runs))],
        "class_colours": [theme.class_colour(k) for k in range(len(leader.metrics["classes"]))],
        "data": data_section(dataset) if dataset else None,
        "proxies": proxy_section(proxies, leader.metrics["classes"]) if proxies else None,
        "divergence": figures.divergence(rows),
        "by_ambiguity": figures.by_ambiguity(rows),
        "curves": figures.training_curves(runs),
        "mean_distributions": figures.mean_distributions(runs),
        "calibration": figures.calibration(runs),
        "calibration_bins": _calibration_bins(runs),
        "marks": figures.BASELINE_GLYPHS,
        "confusion": _confusion(leader),
        "settings": _settings(runs),
        "leader": leader,
        "leader_colour": theme.arm_colour(runs.index(leader)),
        "clips": in_script(clips),
        "synthetic_bars": any("synthetic" in clip for clip in clips["clips"]),
        "left_out": left_out,
    }


def _dataset(run: EvaluatedRun) -> Dataset | None:
    """The dataset that the run was evaluated on; None where it cannot be opened here.

    Raises:
        UserError: another one is there now: its audio and votes would stand next to predictions that are not of them.
    """
    try:
        dataset = open_dataset(run.config.data.dataset)
    except UserError:
        return None
    lines = {line["id"]: line for line in run.predictions}
    ids = dataset.splits[run.metrics["split"]]
    same = dataset.classes == tuple(run.metrics["classes"]) and lines.keys() == set(ids)
    if same:
        human_nk = human_distributions(dataset, ids)
        evaluated_nk = shares([lines[id] for id in ids], "reference", dataset.classes)
        same = np.allclose(human_nk, evaluated_nk, atol=1e-9)
    if not same or any(dataset.utterances[id].speaker != lines[id]["speaker"] for id in ids):
        raise UserError(
            f"{dataset.path} is not, or no longer, the dataset that {run.path} was evaluated on; put that one back, or "
            f"run `aer-jax evaluate --run {run.path}` again."
        )
    return dataset


def _confusion(run: EvaluatedRun) -> dict[str, list[list[float]]]:
    """Shares of each class, on average, where listeners heard a class, weighted by their share for it.

    Row i, column j: sum over clips of q_i p_j / sum of q_i. With p = q it is what listeners do to each other, which no
    model that predicts distributions can and should bring to the identity.
    """
    classes = run.metrics["classes"]
    human_nk, predicted_nk = (shares(run.predictions, key, classes) for key in ("reference", "probs"))
    total_k1 = np.maximum(human_nk.sum(axis=0), 1e-12)[:, None]
    return {
        "human": (human_nk.T @ human_nk / total_k1).tolist(),
        "predicted": (human_nk.T @ predicted_nk / total_k1).tolist(),
    }


def _calibration_bins(runs: Sequence[EvaluatedRun]) -> list[tuple[str, list[int]]]:
    counts_rb = np.array([run.metrics["reliability"]["n"] for run in runs])
    bins = counts_rb.shape[1]
    return [
        (f"{b / bins:.1f} to {(b + 1) / bins:.1f}", counts_rb[:, b].tolist())
        for b in range(bins)
        if counts_rb[:, b].any()
    ]


def _leading(arms: Sequence[table.Row], column: str) -> float | None:
    values = [value for row in arms if (value := row.values[column]) is not None]
    if len(arms) < 2 or not values:
        return None
    return min(values) if table.COLUMNS[column][1] else max(values)


def _settings(runs: Sequence[EvaluatedRun]) -> list[tuple[str, list[str]]]:
    return [
        ("Learned from", [table.learned_from(run.config.labels) + " votes" for run in runs]),
        ("Journal", [_last(run.config.labels.journal) for run in runs]),
        ("Clips without a synthetic vote", [_without_vote(run.environment) for run in runs]),
        ("DiME-Aug ratio", [f"{r:g}" if (r := run.config.data.dime_aug.ratio) else "off" for run in runs]),
        ("Recipe", [run.config.recipe for run in runs]),
        ("Base checkpoint", [_named(run, "model", "checkpoint") for run in runs]),
        ("Parameters, trained / frozen", [_parameters(run) for run in runs]),
        ("Head", [run.config.model.head for run in runs]),
        ("LoRA rank", [str(run.config.model.lora.rank) for run in runs]),
        ("Epochs run / allowed", [f"{_most(run, 'epoch')} / {run.config.train.epochs}" for run in runs]),
        ("Optimizer steps", [_most(run, "step") for run in runs]),
        ("Learning rate, adapters / head", [_rates(run) for run in runs]),
        ("Batch", [str(run.config.train.batch) for run in runs]),
        ("Seed", [str(run.config.seed) for run in runs]),
        ("Device", [_device(run.environment) for run in runs]),
        ("Dataset", [_named(run, "data", "dataset") for run in runs]),
        ("JAX", [run.environment.get("packages", {}).get("jax", NONE) for run in runs]),
        ("Begun (UTC)", [_made(run, "date") for run in runs]),
        ("aer_jax", [_made(run, "version") for run in runs]),
        ("Commit", [_made(run, "commit") for run in runs]),
        ("Command, folders left out", [_without_folders(_made(run, "command")) for run in runs]),
    ]


def _named(run: EvaluatedRun, section: str, key: str) -> str:
    """The last part of a setting's path, and the first digits of its content's SHA-256."""
    name = _last(getattr(getattr(run.config, section), key))
    digest = run.environment.get("learns_from", {}).get(f"{section}.{key}")
    return f"{name} (sha256 {str(digest)[:12]}…)" if digest else name


def _parameters(run: EvaluatedRun) -> str:
    counts = run.environment.get("parameters")
    return f"{counts['trainable']:,} / {counts['frozen']:,}" if counts else NOT_RECORDED


def _rates(run: EvaluatedRun) -> str:
    train = run.config.train
    return f"{train.lr:g} / {train.head_lr:g}" if train.epochs else "no steps: the head is fitted"


def _made(run: EvaluatedRun, key: str) -> str:
    provenance = run.environment.get("provenance", {})
    if key == "version":
        provenance = {"version": run.environment.get("packages", {}).get("aer-jax")} | provenance
    return provenance.get(key) or NOT_RECORDED


def _without_folders(command: str) -> str:
    try:
        arguments = shlex.split(command)
    except ValueError:
        return NOT_RECORDED
    parts = (argument.rpartition("=") for argument in arguments)
    return shlex.join(f"{key}{equals}{Path(value).name if '/' in value else value}" for key, equals, value in parts)


def _without_vote(environment: dict[str, Any]) -> str:
    facts = environment.get("without_synthetic_vote")
    if not facts:
        return NONE
    return f"{sum(facts['clips'].values())}, {'left out' if facts['treatment'] == 'drop' else 'human votes alone'}"


def _last(path: str | None) -> str:
    # The page is sent around: the last part of a path names the thing without telling where somebody keeps it.
    return Path(path).name if path else NONE


def _most(run: EvaluatedRun, key: str) -> str:
    values = [line[key] for line in run.log if line.get(key) is not None]
    return f"{max(values):g}" if values else NONE


def _device(environment: dict[str, Any]) -> str:
    count, kind = environment.get("devices", 1), environment.get("device", NONE)
    return kind if count == 1 else f"{count} x {kind}"
