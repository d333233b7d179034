"""Commands for large runs: plan one on chips that are not here, time its parts."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from aer_jax.cli.command import Command, show, start_jax
from aer_jax.errors import UserError


def plan(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    config = load_config(args.config, args.settings)
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever is here, the plan is for something else
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a program for chips that are not here cannot be read back
    start_jax()
    if args.annotate:
        return _plan_annotation(args, config.model.checkpoint)
    from aer_jax.scale import plan, plan_text

    lengths = {"seconds": args.seconds, "prompt": args.prompt}
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


def bench(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    needed = {"load": "model", "data": "data"}[args.what]
    if not getattr(args, needed):
        raise UserError(f"bench {args.what} needs --{needed}.")
    named = {"model.checkpoint": args.model, "data.dataset": args.data}
    config = load_config(None, [*args.settings, *(f"{key}={value}" for key, value in named.items() if value)])
    if args.what == "data":
        from aer_jax.scale.bench_data import bench_data, table

        result = bench_data(config)
    else:
        start_jax()
        from aer_jax.scale.bench_load import bench_load, table

        result = bench_load(config.model, config.mesh)
    show(args, result, table(result))


def add(command: Command) -> None:
    """Define plan, bench."""
    sub = command(
        plan,
        "will a run fit chips that are not here, and how long would it take; compiles the real step for a TPU slice",
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
    sub.add_argument("--prompt", type=int, default=160, help="tokens beside the audio's, where no dataset says (160)")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="as for train")

    sub = command(
        bench,
        "time a part of the work; load: a checkpoint from files to sharded arrays; data: clips to batches on one core, "
        "beside a PyTorch DataLoader doing the paper's work",
        "bench load model.dtype=bfloat16 mesh.data=1 mesh.fsdp=8 --model Qwen2-Audio-7B-Instruct",
    )
    sub.add_argument("what", choices=("load", "data"))
    sub.add_argument("--model", help="checkpoint directory or hub id; data: of the tokenizer, a small one without it")
    sub.add_argument("--data", help="data: the dataset directory")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="as for train")
