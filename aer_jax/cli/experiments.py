"""Commands about many runs: an experiment and its tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from aer_jax.cli.command import Command, show, start_jax


def experiment(args: argparse.Namespace) -> None:
    from aer_jax.experiments.settings import load_experiment

    settings = load_experiment(args.file, args.settings, args.out)
    start_jax()
    from aer_jax.experiments.experiment import PAGE, refuse_failures, run_experiment
    from aer_jax.experiments.words import text

    result = run_experiment(settings)
    show(args, result, f"{text(result)}\n\nall tables: {Path(settings.out) / PAGE}")
    refuse_failures(result, settings.out)


def add(command: Command) -> None:
    """Define experiment."""
    sub = command(
        experiment,
        "a grid of runs (labels, DiME-Aug, recipes, folds, seeds) and its tables; given again, it goes on",
        "experiment configs/experiments/crema_d_4.yaml corpus.root=CREMA-D settings.model.checkpoint=CHECKPOINT",
    )
    sub.add_argument("file", type=Path, metavar="FILE", help="YAML; see aer_jax/experiments/settings.py for every key")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="on top of the file, for instance seeds=[0,1,2]")
    sub.add_argument("--out", type=Path, help="directory of everything that is written, instead of the file's out")
