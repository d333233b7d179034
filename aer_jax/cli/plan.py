"""The command for large runs: plan one on chips that are not here."""

from __future__ import annotations

import argparse
from pathlib import Path

from aer_jax.bounds import Range, whole
from aer_jax.cli.command import Command, show
from aer_jax.jax_setup import start_jax

TOKENS = Range(0, 100_000)


def plan(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    config = load_config(args.config, args.settings)
    start_jax(compile_only=True)
    from aer_jax.plan import plan
    from aer_jax.plan import text as plan_text

    lengths = {"seconds": args.seconds, "prompt": args.prompt, "prefix": args.prefix}
    if args.sweep:
        best = plan.sweep(config, args.topology, **lengths)
        show(args, best, plan_text.table(best))
    else:
        one = plan.plan(config, args.topology, **lengths)
        show(args, one, plan_text.text(one))


def add(command: Command) -> None:
    """Define plan."""
    sub = command(
        plan,
        "estimate memory and time of a run on chips that are not here",
        "plan --config configs/qwen2_audio_7b.yaml --topology v5e:4x4",
    )
    sub.add_argument("--config", type=Path, help="YAML file; without a checkpoint, Qwen2-Audio-7B's published shapes")
    sub.add_argument("--topology", required=True, help="chips, as v5e:4x4, v6e:4x4, v5p:2x2x4, h100:8")
    sub.add_argument(
        "--sweep", action="store_true", help="the best meshes, microbatches and remat policies, as a table"
    )
    sub.add_argument("--seconds", type=float, help="longest clip, instead of data.dataset's lengths or max_seconds")
    sub.add_argument(
        "--prompt", type=whole(TOKENS), default=60, help="tokens of a clip's own words, where no dataset says (60)"
    )
    sub.add_argument(
        "--prefix", type=whole(TOKENS), default=100, help="tokens that all prompts begin with, likewise (100)"
    )
    sub.add_argument("settings", nargs="*", metavar="key=value", help="as for train")
