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
    from aer_jax.proxies.quality import quality
    from aer_jax.proxies.quality_text import text

    result = quality(open_dataset(args.data), args.journal, args.exact, args.group)
    said = text(result)
    if args.out:
        from aer_jax.reports.proxies import write_quality

        said += f"\n\n{write_quality(args.out, result)}: the figures, and all of this in proxies.json"
    show(args, result, said)


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
        "how good are synthetic votes: agreement with people, also by ambiguity, persona, temperature and speakers, "
        "how many are enough, what they are worth when pooled",
        "proxies --data data/crema_d --journal data/crema_d.jsonl --out data/crema_d_proxies",
    )
    sub.add_argument("--data", type=Path, required=True)
    sub.add_argument("--journal", type=Path, required=True)
    sub.add_argument("--out", type=Path, help="folder for proxies.json and the figures")
    sub.add_argument(
        "--exact", type=Path, metavar="JOURNAL", help="by the exact engine: what infinitely many votes would give"
    )
    sub.add_argument(
        "--group",
        metavar="ATTRIBUTE",
        help="of the speakers, as the corpus names it, for instance sex; speaker: each by itself (what the corpus has)",
    )
