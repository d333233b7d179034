"""Commands about a run: train it, evaluate it, predict with it, take it elsewhere."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aer_jax.cli.command import Command, show
from aer_jax.errors import UserError
from aer_jax.files.atomic import refuse_remote
from aer_jax.jax_setup import start_jax

if TYPE_CHECKING:
    from aer_jax.config import Config


def train(args: argparse.Namespace) -> None:
    from aer_jax.training.signals import stop_at_start

    with stop_at_start():
        _train(args)


def _train(args: argparse.Namespace) -> None:
    from aer_jax.training.check import check

    config, resume = _settings(args)
    check(config)
    start_jax()
    from aer_jax.training.distributed import joined
    from aer_jax.training.hooks.profile import parse_window
    from aer_jax.training.trainer import train

    window = parse_window(args.profile) if args.profile else None
    with joined() as first:
        if first and config.labels.journal and config.labels.source == "human":
            print(f"labels.source is human, so {config.labels.journal} (labels.journal) is not read.", file=sys.stderr)
        run = train(config, resume=resume, profile=window)
        if first:
            show(args, {"run": str(run.path)}, f"{run.path}: done; next, `aer-jax evaluate --run {run.path}`")


def _settings(args: argparse.Namespace) -> tuple[Config, bool]:
    """The settings and whether to resume. `--resume RUN` takes those of the run; `--resume` is followed by settings."""
    from aer_jax.config import load_config

    run, given = args.resume, args.settings
    if run is not None and "=" in run and not Path(run).is_dir():
        run, given = "", [run, *given]
    if not run:
        return load_config(args.config, given), run is not None
    refuse_remote(run, "--resume")
    if args.config or any(setting.startswith("out=") for setting in given):
        raise UserError(f"--resume {run} takes the settings of that run; leave --config and out= out.")
    if not (Path(run) / "config.yaml").is_file():
        raise UserError(f"{run} is not a run directory (it has no config.yaml); `aer-jax train` makes one.")
    return dataclasses.replace(load_config(Path(run) / "config.yaml", given), out=run), True


def evaluate(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.inference.evaluate_run import evaluate_run
    from aer_jax.reports.table import summary_table
    from aer_jax.training.distributed import joined

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
    from aer_jax.inference.export import export

    written = export(args.run, args.format.split(","), args.out)
    show(args, {name: str(path) for name, path in written.items()}, "\n".join(map(str, written.values())))


def add(command: Command) -> None:
    """Define train, evaluate, predict, export."""
    sub = command(
        train, "fine-tune a model; writes a run directory", "train --config configs/crema_d_mini.yaml train.epochs=2"
    )
    sub.add_argument("--config", type=Path, help="YAML file; `aer-jax config` shows every key")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="on top of the file, for instance seed=1")
    sub.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="continue RUN with its own settings, train.epochs=N extends it; without RUN, the run in out=, which is "
        "begun where there is none yet",
    )
    sub.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps for xprof, into RUN/profile")

    sub = command(evaluate, "predict a split and score it on human votes", "evaluate --run runs/crema_d_mini")
    sub.add_argument("--run", type=Path, required=True, help="a run directory of `aer-jax train`")
    sub.add_argument("--split", default="test", choices=("train", "validation", "test"), help="test without it")

    _add_predict(command)

    sub = command(
        export,
        "export a run's best model as a PEFT adapter or as merged weights",
        "export --run runs/crema_d_mini --format peft,merged --out exports/crema_d_mini",
    )
    sub.add_argument("--run", type=Path, required=True, help="a run directory of `aer-jax train`")
    sub.add_argument("--format", required=True, help="peft, merged, or both with a comma")
    sub.add_argument(
        "--out", type=Path, required=True, help="directory, must not exist; two formats go to OUT/peft and OUT/merged"
    )


def _add_predict(command: Command) -> None:
    sub = command(
        predict,
        "predict distributions for audio files, folders, or standard input",
        "predict --run runs/crema_d_mini a.wav recordings/ --format csv --out shares.csv",
    )
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", type=Path, help="a run directory of `aer-jax train`")
    what.add_argument("--model", metavar="CHECKPOINT", help="a checkpoint as it is: its own answers, zero-shot")
    sub.add_argument("--classes", help="with --model: comma-separated labels, for instance angry,happy,neutral,sad")
    sub.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="an audio file, a folder with its subfolders, or - (stdin)"
    )
    sub.add_argument(
        "--format",
        choices=("table", "jsonl", "csv"),
        help="as the ending of --out says, else table; --json is the same as jsonl",
    )
    sub.add_argument("--out", type=Path, help="write there instead of to standard output")
    words = sub.add_mutually_exclusive_group()
    words.add_argument("--transcript", default="", help="the words, where known; the same for all files")
    words.add_argument(
        "--transcripts",
        type=Path,
        metavar="TABLE",
        help="a table (CSV, JSON lines, Excel, ...) with file and transcript",
    )
    sub.add_argument(
        "--window",
        type=float,
        help="seconds; what is longer is cut into windows. Without it: what is longer than 30 s, into 10 s",
    )
    sub.add_argument("--hop", type=float, help="seconds from window to window at most; less than the window overlaps")
    sub.add_argument("--figure", type=Path, help="draw the time lines: a .png, .svg or .html file")
