"""Commands about a run: train it, evaluate it, predict with it, take it elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from aer_jax.cli.command import Command, show, start_jax


def train(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    config = load_config(args.config, args.settings)
    start_jax()
    from aer_jax.training.loop import train
    from aer_jax.training.processes import joined
    from aer_jax.training.profile import parse_window

    window = parse_window(args.profile) if args.profile else None
    with joined() as first:
        run = train(config, resume=args.resume, profile=window)
        if first:
            show(args, {"run": str(run.path)}, f"{run.path}: done; next, `aer-jax evaluate --run {run.path}`")


def evaluate(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.pipeline import evaluate_run
    from aer_jax.reports.table import summary_table
    from aer_jax.training.processes import joined

    with joined() as first:
        metrics = evaluate_run(args.run, args.split)
        if first:
            show(args, metrics, summary_table([args.run], args.split))


def predict(args: argparse.Namespace) -> int:
    start_jax()
    from aer_jax.cli.predict import predict

    return predict(args)


def export(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.export import export

    written = export(args.run, args.format.split(","), args.out)
    show(args, {name: str(path) for name, path in written.items()}, "\n".join(map(str, written.values())))


def add(command: Command) -> None:
    """Define train, evaluate, predict, export."""
    sub = command(train, "fine-tune; writes a run directory", "train --config configs/crema_d_mini.yaml train.epochs=2")
    sub.add_argument("--config", type=Path, help="YAML file; see aer_jax/config.py for every key")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="on top of the file, for instance seed=1")
    sub.add_argument("--resume", action="store_true", help="continue the run in out=; begin it where there is none yet")
    sub.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps for xprof, into RUN/profile")

    sub = command(evaluate, "predictions and metrics of a run", "evaluate --run runs/crema_d_mini")
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument("--split", default="test", choices=("train", "validation", "test"))

    sub = command(
        predict,
        "distributions for audio files, folders, or the bytes of one on standard input",
        "predict --run runs/crema_d_mini a.wav recordings/ --format csv --out shares.csv",
    )
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="an audio file, a folder with its subfolders, or - (stdin)"
    )
    sub.add_argument(
        "--format", choices=("table", "jsonl", "csv"), help="table without it; --json is the same as jsonl"
    )
    sub.add_argument("--out", type=Path, help="write there instead of to standard output")
    words = sub.add_mutually_exclusive_group()
    words.add_argument("--transcript", default="", help="the words, where known; the same for all files")
    words.add_argument("--transcripts", type=Path, metavar="TABLE", help="CSV or JSON lines with file and transcript")
    sub.add_argument(
        "--window",
        type=float,
        help="seconds; what is longer is cut into windows. Without it: what is longer than 30 s, into 10 s",
    )
    sub.add_argument("--hop", type=float, help="seconds from window to window at most; less than the window overlaps")
    sub.add_argument("--figure", type=Path, help="draw the time lines: a .png, .svg or .html file")

    sub = command(
        export,
        "a run's best model for PyTorch: a PEFT adapter, or merged weights for transformers",
        "export --run runs/crema_d_mini --format peft,merged --out exports/crema_d_mini",
    )
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument("--format", required=True, help="peft, merged, or both with a comma")
    sub.add_argument(
        "--out", type=Path, required=True, help="directory, must not exist; two formats go to OUT/peft and OUT/merged"
    )
