"""Commands about data: a corpus on disk becomes a dataset; what DiME-Aug added to it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from aer_jax.bounds import SEED, Range, whole
from aer_jax.cli.command import Command, show

_CHOICES = ("excited", "multi_label", "improvised", "audio", "map", "labels")


def prepare(args: argparse.Namespace) -> None:
    from aer_jax.corpora import read_corpus
    from aer_jax.data.dataset_files import read_about
    from aer_jax.data.preparation.left_out import LeftOut, screen_text
    from aer_jax.data.preparation.prepare import prepare

    classes = args.classes.split(",") if args.classes else None
    choices = {name: getattr(args, name) for name in _CHOICES}
    corpus = read_corpus(args.corpus, args.root, classes, args.lenient, **choices)
    if args.annotations:
        from aer_jax.annotation.paper_annotations import read_annotations, write_journal

        synthetic = read_annotations(args.annotations, corpus)
    if corpus.licensed:
        print(
            f"aer-jax: {corpus.name} is licensed: keep its audio, words and votes, and this dataset, on your machines.",
            file=sys.stderr,
        )
    dataset = prepare(corpus, args.out, classes, args.seed, args.split, args.outside)
    about = read_about(dataset.path)
    result: dict[str, Any] = {"dataset": str(dataset.path), "classes": list(dataset.classes)}
    if about["left_out"]:
        result["left_out"] = [LeftOut(*one)._asdict() for one in about["left_out"]]
    if about["notes"]:
        result["notes"] = about["notes"]
    counts = {part: len(ids) for part, ids in dataset.splits.items()}
    text = screen_text(about, dataset.splits, dataset.path)
    if args.annotations:
        journal = write_journal(synthetic, dataset)
        result["journal"] = str(journal)
        text += f"\nsynthetic votes for labels.journal: {journal}"
    show(args, result | counts, text)


def augmented(args: argparse.Namespace) -> None:
    from aer_jax.reports.pages.augmented import write_augmented

    write_augmented(args.run, args.out, args.samples, args.licensed)
    show(args, {"page": str(args.out)}, str(args.out))


def add(command: Command) -> None:
    """Define prepare, augmented."""
    _add_prepare(command)
    _add_augmented(command)


def _add_prepare(command: Command) -> None:
    sub = command(
        prepare,
        "convert a corpus on disk into a dataset directory",
        "prepare --corpus crema-d --root CREMA-D --out data/crema_d --classes angry,happy,neutral,sad",
    )
    sub.add_argument(
        "--corpus", required=True, help="crema-d, iemocap, msp-podcast, paper-json, manifest or toy (generated)"
    )
    sub.add_argument(
        "--root",
        type=Path,
        help="where the corpus lies; the file, for paper-json and a manifest: a table (.csv, .tsv, .xlsx, .json, "
        ".jsonl, .parquet) with the columns id, audio, speaker, votes (happy;happy;sad or happy:2;sad:1) or "
        "distribution (happy:0.7;sad:0.3), and optionally transcript, split, start and end in seconds, rater "
        "(docs/your-data.md)",
    )
    sub.add_argument("--out", type=Path, required=True, help="dataset directory, must not exist")
    sub.add_argument("--classes", help="comma-separated; the corpus' usual ones without it")
    sub.add_argument(
        "--outside",
        choices=("renormalise", "drop"),
        default="renormalise",
        help="clips with votes outside the classes: renormalise over those inside (default), or drop the clip (paper)",
    )
    sub.add_argument(
        "--split",
        help="speakers; fold:2/5, second of five folds of speakers; session:3 (iemocap); official, official:test2; "
        "random, the paper's, which shares speakers; or a CSV, TSV or JSONL file with the columns id or speaker, and "
        "part. Default: official where there is one, else speakers",
    )
    sub.add_argument("--seed", type=whole(SEED), default=0, help="random seed of the split")
    sub.add_argument("--lenient", action="store_true", help="skip and count lines that cannot be read")
    _add_choices(sub.add_argument_group("choices of one corpus"))


def _add_choices(own: argparse._ArgumentGroup) -> None:
    own.add_argument(
        "--excited", choices=("happy", "apart"), help="iemocap, paper-json: Excited counts as happy (default) or apart"
    )
    own.add_argument(
        "--multi-label",
        choices=("shared", "whole"),
        help="iemocap: each of k labels in an answer is 1/k of a vote (default) or a whole one",
    )
    own.add_argument("--improvised", action="store_true", default=None, help="iemocap: no scripted dialogues")
    own.add_argument(
        "--map",
        metavar="FIELD=COLUMN,...",
        help="manifest: columns by other names than the usual, audio=file_name,speaker=spk; votes in several columns, "
        "counts=Angry+Sad, shares=Angry+Sad, raters=R1+R2; FIELD= leaves a field unread (docs/your-data.md)",
    )
    own.add_argument(
        "--labels", type=Path, help="manifest: a table of synonyms, lines `anger,angry`; with it case does not matter"
    )
    own.add_argument("--audio", type=Path, help="paper-json: where the audio paths start; the file's folder without it")
    own.add_argument(
        "--annotations", type=Path, help="paper-json: synthetic annotations, turned into a journal in the dataset"
    )


def _add_augmented(command: Command) -> None:
    sub = command(
        augmented,
        "write a page to see and hear what DiME-Aug added to a run's training clips",
        "augmented --run runs/crema_d_mini --out augmented.html",
    )
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="the page; it carries the audio of the clips it shows")
    sub.add_argument("--samples", type=whole(Range(1, 1000)), default=12, help="how many added clips it shows (12)")
    sub.add_argument("--licensed", action="store_true", help="for a licensed corpus too; the page must then stay here")
