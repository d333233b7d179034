"""The commands: thin wrappers that parse, call and print; the logic is in the packages.

argparse stays: with cyclopts or tyro the help texts, which are most of these files, would be as long, the core would
depend on six more packages, and their errors are not the one sentence that is promised.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from aer_jax import __version__
from aer_jax.cli import annotation, bench, data, experiments, plan, reports, settings, training
from aer_jax.errors import UserError, nearest
from aer_jax.files.atomic import refuse_remote

# Heavy packages are imported by the command that needs them, so that --help answers at once.

# In the order of the work.
ORDER = (
    "demo", "prepare", "config", "annotate", "proxies", "train", "evaluate", "report", "predict", "ensemble",
    "augmented", "experiment", "raters", "plan", "bench", "export",
)  # fmt: skip
GO_ON = ("prepare", "annotate")  # train and experiment say it themselves
EXTRAS = {"matplotlib": "report"}  # other extras are named where they are imported


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    top = argparse.ArgumentParser(
        prog="aer-jax",
        description="Fine-tune Qwen2-Audio to predict the distribution of emotions that listeners hear in speech. "
        "Input: listeners' votes. Output: a fine-tuned model and an evaluation report.",
    )
    top.add_argument("--version", action="version", version=f"aer-jax {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], int | None], about: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=about, description=about, epilog=f"example: aer-jax {example}")
        sub.set_defaults(run_command=run)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    for module in (reports, data, settings, annotation, training, experiments, plan, bench):
        module.add(command)
    # argparse shows them as they were defined, module by module, and has no public way to sort them.
    commands._choices_actions.sort(key=lambda action: ORDER.index(action.dest))
    return top


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The words of a command line as its command and flags; wrong use exits with code 2."""
    top = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        top.print_help(sys.stderr)
        top.exit(2)
    if not words[0].startswith("-") and words[0] not in ORDER:
        top.error(f'there is no command "{words[0]}".{nearest(words[0], ORDER)} `aer-jax --help` lists them.')
    args, rest = top.parse_known_args(words)
    # argparse gives up on positional arguments once a flag has come between them.
    if unknown := [word for word in rest if not hasattr(args, "settings") or word.startswith("-") or "=" not in word]:
        if "=" in unknown[0] and not unknown[0].startswith("-"):
            top.exit(2, f"aer-jax: {_no_settings(unknown[0], words[0], args)}\n")
        flags = [f"--{name.replace('_', '-')}" for name in vars(args)]
        top.error(f"unrecognized arguments: {' '.join(unknown)}.{nearest(unknown[0], flags)}")
    if rest:
        args.settings = [*args.settings, *rest]
    return args


def _no_settings(word: str, command: str, args: argparse.Namespace) -> str:
    if run := getattr(args, "run", None):
        return (
            f"unrecognized arguments: {word}; {command} takes the settings of the run. Where its dataset, journal or "
            f"checkpoint moved, write the new place into {Path(run) / 'config.yaml'}; other settings stay as trained."
        )
    return f"unrecognized arguments: {word}; {command} takes no settings, `aer-jax {command} --help` shows its flags."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 for success, 2 and one sentence for wrong use or bad input, 75 for a run that was stopped."""
    code = run(parse(argv))
    processes = sys.modules.get("aer_jax.training.distributed")
    return processes.leave(code) if processes else code


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
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        print(
            f"aer-jax: {args.run_command.__name__} needs {package}: `pip install 'aer-jax[{EXTRAS[package]}]'`.",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a directory that may not be written
        where = f" ({error.filename})" if error.filename else ""
        print(f"aer-jax: {error.strerror or error}{where}; make room or choose another place.", file=sys.stderr)
        return 2
    except (RuntimeError, AssertionError) as error:
        if not _is_backend(error):
            raise
        why = " ".join(str(error).split()).partition(" (set JAX_PLATFORMS")[0] or "there is no such backend here"
        named = os.environ.get("JAX_PLATFORMS", "")
        print(
            f'aer-jax: JAX cannot start with JAX_PLATFORMS="{named}": {why.rstrip(".")}; unset it, or set it to cpu.',
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        keeps = "; what is done is kept, and the same command goes on" if args.run_command.__name__ in GO_ON else ""
        print(f"aer-jax: interrupted{keeps}.", file=sys.stderr)
        return 130


def _is_backend(error: BaseException) -> bool:
    """Whether JAX failed to start a backend, which it says in several ways, one of them an empty AssertionError."""
    frames = traceback.extract_tb(error.__traceback__)
    return "Unable to initialize backend" in str(error) or frames[-1].filename.endswith("xla_bridge.py")
