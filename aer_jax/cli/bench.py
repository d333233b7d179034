"""The command that times parts of the work, and the whole next to PyTorch."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aer_jax.bounds import COUNT, Range, whole
from aer_jax.cli.command import Command, show
from aer_jax.errors import UserError
from aer_jax.jax_setup import start_jax

WHAT = {
    "train": "training steps, next to PyTorch in the paper's way and in a careful one",
    "ablations": "training steps with one optimization disabled at a time",
    "predict": "predictions, next to a transformers loop",
    "annotate": "synthetic votes by exact likelihoods, next to transformers' loop over labels and sampled answers",
    "start": "from the command to the first training step, with an empty cache of compiled programs and once more",
    "data": "clips to batches on one core, next to a PyTorch DataLoader doing the paper's work",
    "load": "a checkpoint from files to sharded arrays",
}
NEEDS = {
    "train": ("data",),
    "ablations": ("data",),
    "predict": ("data", "model"),
    "annotate": ("data", "model"),
    "start": ("data", "model"),
    "data": ("data",),
    "load": ("model",),
}


def bench(args: argparse.Namespace) -> None:
    from aer_jax.bench.tables import text
    from aer_jax.config import load_config

    with datasets(args) as data:
        named = {"model.checkpoint": args.model, "data.dataset": data}
        settings = [*args.settings, *(f"{key}={value}" for key, value in named.items() if value)]
        config = load_config(None, settings)
        start_jax()
        check_flags(args.what, data=data, model=args.model)
        result = run(args, config, settings)
    show(args, result, text(result))


def run(args: argparse.Namespace, config: Any, settings: list[str]) -> dict[str, Any]:
    """The result of the bench that is named."""
    what = args.what
    if what == "load":
        from aer_jax.bench.load import bench_load

        return bench_load(config.model, config.mesh)
    if what == "data":
        from aer_jax.bench.data import bench_data

        return bench_data(config)
    if what == "start":
        from aer_jax.bench.start import bench_start

        return bench_start(settings)
    if what == "annotate":
        from aer_jax.bench.annotate import bench_annotate

        return bench_annotate(config, args.clips)
    if what == "predict":
        from aer_jax.bench.predict import bench_predict

        return bench_predict(config)
    from aer_jax.bench.train import bench_train

    with checkpoints(config) as config:
        return bench_train(config, args.steps, ablations=what == "ablations")


def check_flags(what: str, **flags: str | None) -> None:
    """Refuse to start without what a bench needs."""
    for name, value in flags.items():
        if name in NEEDS[what] and not value:
            raise UserError(f"bench {what} needs --{name}" + (" (or --root)." if name == "data" else "."))


@contextmanager
def datasets(args: argparse.Namespace) -> Iterator[str | None]:
    """The dataset: the one that is named, or a temporary one of the CREMA-D that lies in --root."""
    if args.data or not args.root:
        yield args.data
        return
    from aer_jax.corpora import read_corpus
    from aer_jax.data.preparation.prepare import prepare

    corpus = read_corpus("crema-d", args.root, ("angry", "happy", "neutral", "sad"), False)
    with tempfile.TemporaryDirectory(prefix="aer_jax_bench_") as folder:
        yield str(prepare(corpus, Path(folder) / "dataset", corpus.classes, 0, None, "renormalise").path)


@contextmanager
def checkpoints(config: Any) -> Iterator[Any]:
    """The settings with a checkpoint: where none is named, the published 7B's shapes with random weights."""
    if config.model.checkpoint:
        yield config
        return
    from aer_jax.models.random_checkpoint import write_random_checkpoint

    with tempfile.TemporaryDirectory(prefix="aer_jax_bench_") as folder:
        path = Path(folder) / "qwen2_audio_7b_random"
        write_random_checkpoint(path, tokenizer=True)
        yield dataclasses.replace(config, model=dataclasses.replace(config.model, checkpoint=str(path)))


def add(command: Command) -> None:
    """Define bench."""
    sub = command(
        bench,
        "time training, prediction, annotation, input and loading, most of them next to PyTorch",
        "bench train model.dtype=bfloat16 --model Qwen2-Audio-7B-Instruct --data data/crema_d --json",
    )
    sub.add_argument("what", choices=tuple(WHAT), help="; ".join(f"{what}: {about}" for what, about in WHAT.items()))
    sub.add_argument(
        "--model",
        help="checkpoint directory or hub id; train, ablations: random weights in the 7B's shapes without it; "
        "data: of the tokenizer, a small one without it",
    )
    sub.add_argument("--data", help="the dataset directory; all but load need it")
    sub.add_argument("--root", type=Path, help="instead of --data: a CREMA-D repository, which is prepared first")
    sub.add_argument(
        "--steps",
        type=whole(Range(1, 10_000)),
        default=2,
        help="train, ablations: timed steps per turn, after one that is not (2)",
    )
    sub.add_argument(
        "--clips", type=whole(COUNT), default=16, help="annotate: clips, taken evenly from the dataset (16)"
    )
    sub.add_argument("settings", nargs="*", metavar="key=value", help="as for train")
