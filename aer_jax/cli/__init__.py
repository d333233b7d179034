"""The commands: parse, call, print. What they do lies in the packages that they call."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from aer_jax.cli import bench, data, experiments, proxies, reports, scale, training
from aer_jax.errors import UserError
from aer_jax.files import refuse_remote

# Heavy packages are imported by the command that needs them, so that --help answers at once.


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    top = argparse.ArgumentParser(
        prog="aer-jax",
        description="Votes about speech go in; a Qwen2-Audio that predicts emotion distributions, and an honest "
        "report, come out.",
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int | None], about: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=about, description=about, epilog=f"example: aer-jax {example}")
        sub.set_defaults(run_command=run)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    for module in (reports, data, proxies, training, experiments, scale, bench):
        module.add(command)
    return top


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The words of a command line as its command and flags; wrong use exits with code 2."""
    top = parser()
    args, rest = top.parse_known_args(argv)
    # argparse gives up on positional arguments once a flag has come between them.
    if unknown := [word for word in rest if not hasattr(args, "settings") or word.startswith("-") or "=" not in word]:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        args.settings = [*args.settings, *rest]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 for success, 2 and one sentence for wrong use or bad input, 75 for a run that was stopped."""
    code = run(parse(argv))
    processes = sys.modules.get("aer_jax.training.processes")
    return processes.part(code) if processes else code


def run(args: argparse.Namespace) -> int:
    """The command, its exit code, and the sentence where it fails."""
    try:
        for name, value in vars(args).items():
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path):
                    refuse_remote(path, f"--{name}")
        return args.run_command(args) or 0
    except UserError as error:
        print(f"aer-jax: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # who was reading has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a directory that may not be written: not ours to foresee at every line
        where = f" ({error.filename})" if error.filename else ""
        print(f"aer-jax: {error.strerror or error}{where}; make room or choose another place.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("aer-jax: interrupted", file=sys.stderr)
        return 130
