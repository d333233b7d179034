"""Commands about what helps: a grid of runs and its tables; human votes thinned to a few."""

from __future__ import annotations

import argparse
from pathlib import Path

from aer_jax.bounds import Range, whole
from aer_jax.cli.command import Command, show
from aer_jax.jax_setup import start_jax


def experiment(args: argparse.Namespace) -> None:
    from aer_jax.experiments.settings import load_experiment

    settings = load_experiment(args.file, args.settings, args.out)
    start_jax()
    from aer_jax.experiments.experiment import PAGE, refuse_failures, run_experiment
    from aer_jax.experiments.report_text import text

    result = run_experiment(settings)
    show(args, result, f"{text(result)}\n\nall tables: {Path(settings.out) / PAGE}")
    refuse_failures(result, settings.out)


def raters(args: argparse.Namespace) -> None:
    from aer_jax.data.dataset import open_dataset
    from aer_jax.experiments.raters import markdown, write_raters

    result = write_raters(
        open_dataset(args.data), dict(args.journal or ()), dict(args.predictions or ()), args.out, args.raters
    )
    show(args, result, f"{markdown(result)}\nfigures: {args.out}")


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=FILE')
    return name, Path(path)


def add(command: Command) -> None:
    """Define experiment, raters."""
    sub = command(
        experiment,
        "train and evaluate a grid of runs, and write its tables; the same command continues it",
        "experiment configs/experiments/crema_d_4.yaml corpus.root=CREMA-D settings.model.checkpoint=CHECKPOINT",
    )
    sub.add_argument("file", type=Path, metavar="FILE", help="YAML; see aer_jax/experiments/settings.py for every key")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="on top of the file, for instance seeds=[0,1,2]")
    sub.add_argument("--out", type=Path, help="directory of everything that is written, instead of the file's out")

    sub = command(
        raters,
        "measure how many human raters a synthetic vote or a model is worth",
        "raters --data data/crema_d --journal synthetic=data/crema_d.jsonl --out runs/raters",
    )
    sub.add_argument("--data", type=Path, required=True)
    sub.add_argument("--journal", type=_named, action="append", metavar="NAME=FILE", help="synthetic votes; repeatable")
    sub.add_argument(
        "--predictions",
        type=_named,
        action="append",
        metavar="NAME=FILE",
        help="predictions.jsonl of a model that did not learn from the speakers, as experiment writes; repeatable",
    )
    sub.add_argument(
        "--raters", type=whole(Range(1, 100)), default=5, help="largest number of votes after thinning (5)"
    )
    sub.add_argument("--out", type=Path, required=True, help="directory for tables and figures")
