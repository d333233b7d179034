"""Commands that show: the demo from end to end, and the page about runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from aer_jax.bounds import Range, real
from aer_jax.cli.command import Command, show
from aer_jax.jax_setup import start_jax


def demo(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.demo.demo import demo
    from aer_jax.reports.table import summary_table

    runs, page = demo(args.out)
    show(args, {"report": str(page)}, f"{summary_table(runs)}\n\nthe page: {page}")


def report(args: argparse.Namespace) -> None:
    from aer_jax.reports.pages.report import write_report
    from aer_jax.reports.table import summary_table

    write_report(args.run, args.out, args.split, args.proxies, args.audio)
    show(args, {"report": str(args.out)}, f"{summary_table(args.run, args.split)}\n\n{args.out}")


def ensemble(args: argparse.Namespace) -> None:
    from aer_jax.reports.ensemble import ensemble, table

    result = ensemble(args.run, args.split, args.out)
    show(args, result, table(result))


def add(command: Command) -> None:
    """Define demo, report, ensemble."""
    sub = command(demo, "run every step on the embedded toy corpus", "demo --out runs/demo")
    sub.add_argument("--out", type=Path, default=Path("runs/demo"))

    sub = command(report, "write one HTML page about evaluated runs", "report --run runs/a runs/b --out report.html")
    sub.add_argument("--run", type=Path, required=True, nargs="+")
    sub.add_argument("--split", default="test", choices=("train", "validation", "test"))
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--proxies", type=Path, help="proxies.json of `aer-jax proxies --out`, or its folder")
    sub.add_argument(
        "--audio", type=real(Range(0, 1000)), default=8.0, metavar="MB", help="of clips to play, 0 for none (8)"
    )

    sub = command(
        ensemble,
        "average the predictions of several evaluated runs, and score the mean",
        "ensemble --run runs/seed0 runs/seed1 runs/seed2",
    )
    sub.add_argument("--run", type=Path, required=True, nargs="+")
    sub.add_argument("--split", default="test", choices=("train", "validation", "test"))
    sub.add_argument("--out", type=Path, help="a file for the mean's predictions, JSON lines")
