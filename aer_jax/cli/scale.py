"""The command for large runs: plan one on chips that are not here."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from aer_jax.bounds import Range, whole
from aer_jax.cli.command import Command, show, start_jax
from aer_jax.errors import UserError

TOKENS = Range(0, 100_000)


def plan(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    config = load_config(args.config, args.settings)
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever is here, the plan is for something else
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a program for chips that are not here cannot be read back
    start_jax()
    if args.annotate:
        return _plan_annotation(args, config.model.checkpoint)
    from aer_jax.scale import plan, plan_text

    lengths = {"seconds": args.seconds, "prompt": args.prompt, "prefix": args.prefix}
    if args.sweep:
        best = plan.sweep(config, args.topology, **lengths)
        show(args, best, plan_text.table(best))
    else:
        one = plan.plan(config, args.topology, **lengths)
        show(args, one, plan_text.text(one))


def _plan_annotation(args: argparse.Namespace, checkpoint: str) -> None:
    from aer_jax.scale.abstract_step import base_config
    from aer_jax.scale.annotation import annotation, text
    from aer_jax.scale.chips import parse_slice

    numbers = args.annotate.split("x")
    if len(numbers) != 2 or not all(part.isdecimal() and int(part) > 0 for part in numbers):
        raise UserError(f"--annotate is {args.annotate}; write utterances x listeners, for instance 100000x10.")
    chips = parse_slice(args.topology)
    result = annotation(base_config(checkpoint), chips, *map(int, numbers), seconds=args.seconds or 5.0)
    show(args, result, text(result))


def add(command: Command) -> None:
    """Define plan."""
    sub = command(
        plan,
        "will a run fit chips that are not here, and how long would it take; compiles the real step",
        "plan --config configs/qwen2_audio_7b.yaml --topology v5e:4x4",
    )
    sub.add_argument("--config", type=Path, help="YAML file; without a checkpoint, Qwen2-Audio-7B's published shapes")
    sub.add_argument("--topology", required=True, help="chips, as v5e:4x4, v6e:4x4, v5p:2x2x4, h100:8")
    sub.add_argument(
        "--sweep", action="store_true", help="the best meshes, microbatches and remat policies, as a table"
    )
    sub.add_argument("--seconds", type=float, help="longest clip, instead of data.dataset's lengths or max_seconds")
    sub.add_argument(
        "--annotate", metavar="UTTERANCESxLISTENERS", help="how long synthetic votes would take instead, clips of 5 s"
    )
    sub.add_argument(
        "--prompt", type=whole(TOKENS), default=60, help="tokens of a clip's own words, where no dataset says (60)"
    )
    sub.add_argument(
        "--prefix", type=whole(TOKENS), default=100, help="tokens that all prompts begin with, likewise (100)"
    )
    sub.add_argument("settings", nargs="*", metavar="key=value", help="as for train")
