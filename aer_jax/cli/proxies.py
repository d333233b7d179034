"""Commands about synthetic votes: ask for them, and see how good they are."""

from __future__ import annotations

import argparse
from pathlib import Path

from aer_jax.cli.command import Command, show


def annotate(args: argparse.Namespace) -> None:
    from aer_jax.data.dataset import open_dataset
    from aer_jax.proxies.annotate import annotate

    result = annotate(open_dataset(args.data), args.model, args.out, args.listeners, args.limit, args.batch)
    asked = result["labelled"] + result["unparsed"] + result["failed"]
    show(
        args,
        result,
        f"{args.out}: {result['labelled']} votes of {asked} answers, {result['unparsed']} unparsed, "
        f"{result['failed']} failed",
    )


def proxies(args: argparse.Namespace) -> None:
    from aer_jax.data.dataset import open_dataset
    from aer_jax.proxies.alignment import alignment

    result = alignment(open_dataset(args.data), args.journal)
    show(
        args,
        result,
        f"synthetic votes against human ones, {result['utterances']} utterances (JS base 2): {result['js']:.3f}; "
        f"shuffled over utterances {result['js_shuffled']:.3f}, p = {result['p_shuffled']:.3f}",
    )


def add(command: Command) -> None:
    """Define annotate, proxies."""
    sub = command(
        annotate,
        "synthetic votes by an audio-language model in a PyTorch process of its own",
        "annotate --data data/crema_d --model Qwen2-Audio-7B-Instruct --out data/crema_d.jsonl",
    )
    sub.add_argument("--data", type=Path, required=True)
    sub.add_argument(
        "--model", required=True, help="checkpoint directory, or a hub id: owner/name or owner/name@revision"
    )
    sub.add_argument("--out", type=Path, required=True, help="the journal; one that exists is continued")
    sub.add_argument("--listeners", type=int, default=8, help="synthetic listeners an utterance (8)")
    sub.add_argument("--limit", type=int, help="only the first so many utterances")
    sub.add_argument("--batch", type=int, default=16, help="questions asked at a time (16)")

    sub = command(
        proxies,
        "how good are synthetic votes",
        "proxies --data data/crema_d --journal data/crema_d.jsonl",
    )
    sub.add_argument("--data", type=Path, required=True)
    sub.add_argument("--journal", type=Path, required=True)
