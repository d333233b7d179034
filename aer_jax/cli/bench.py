"""The command that times: parts of the work, and the whole beside PyTorch."""

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
    "train": "training steps, beside PyTorch as the paper did it and as one may do it carefully",
    "ablations": "training steps, with one of our means undone at a time",
    "predict": "predictions, beside a transformers loop",
    "annotate": "synthetic votes by exact likelihoods, beside transformers' loop over labels and sampled answers",
    "start": "from the command to the first training step, with an empty cache of compiled programs and once more",
    "data": "clips to batches on one core, beside a PyTorch DataLoader doing the paper's work",
    "load": "a checkpoint from files to sharded arrays",
}


def bench(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    what = args.what
    with datasets(args) as data:
        named = {"model.checkpoint": args.model, "data.dataset": data}
        config = load_config(None, [*args.settings, *(f"{key}={value}" for key, value in named.items() if value)])
        start_jax()
        if what == "load":
            needs(what, model=args.model)
            from aer_jax.bench.load import bench_load, table

            result: dict[str, Any] = bench_load(config.model, config.mesh)
        elif what == "data":
            needs(what, data=data)
            from aer_jax.bench.data import bench_data, table

            result = bench_data(config)
        elif what == "start":
            needs(what, data=data, model=args.model)
            from aer_jax.bench.start import bench_start, table

            result = bench_start([*args.settings, f"model.checkpoint={args.model}", f"data.dataset={data}"])
        elif what == "annotate":
            needs(what, data=data, model=args.model)
            from aer_jax.bench.annotate import bench_annotate, table

            result = bench_annotate(config, args.clips)
        elif what in ("train", "ablations"):
            needs(what, data=data)
            from aer_jax.bench.train import bench_train, table

            with checkpoints(config) as config:
                result = bench_train(config, args.steps, ablations=what == "ablations")
        else:
            needs(what, data=data, model=args.model)
            from aer_jax.bench.predict import bench_predict, table

            result = bench_predict(config)
    show(args, result, table(result))


def needs(what: str, **flags: str | Path | None) -> None:
    """Refuse what a bench cannot do without."""
    for name, value in flags.items():
        if not value:
            raise UserError(f"bench {what} needs --{name}" + (" (or --root)." if name == "data" else "."))


@contextmanager
def datasets(args: argparse.Namespace) -> Iterator[str | None]:
    """The dataset to hear: the one that is named, or a temporary one of the CREMA-D that lies in --root."""
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
        "time the work; " + "; ".join(f"{what}: {about}" for what, about in WHAT.items()),
        "bench train model.dtype=bfloat16 --model Qwen2-Audio-7B-Instruct --data data/crema_d --json",
    )
    sub.add_argument("what", choices=tuple(WHAT))
    sub.add_argument(
        "--model",
        help="checkpoint directory or hub id; train, ablations: random weights in the 7B's shapes without it; "
        "data: of the tokenizer, a small one without it",
    )
    sub.add_argument("--data", help="the dataset directory; all but load need it")
    sub.add_argument("--root", type=Path, help="instead of --data: a CREMA-D repository, prepared for this time alone")
    sub.add_argument(
        "--steps",
        type=whole(Range(1, 10_000)),
        default=2,
        help="train, ablations: timed steps a turn, after one that is not (2)",
    )
    sub.add_argument("--clips", type=whole(COUNT), default=16, help="annotate: of the dataset, evenly taken (16)")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="as for train")
