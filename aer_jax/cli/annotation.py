"""Commands about synthetic votes: ask for them, and see how good they are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aer_jax.annotation.engines import ENGINES
from aer_jax.bounds import COUNT, Range, real, whole
from aer_jax.cli.command import Command, show
from aer_jax.errors import UserError
from aer_jax.jax_setup import start_jax

if TYPE_CHECKING:
    from aer_jax.annotation.engines.interface import Engine
    from aer_jax.annotation.task import AnnotationTask


def annotate(args: argparse.Namespace) -> None:
    from aer_jax.annotation.annotate import annotate, refuse_without_votes
    from aer_jax.annotation.listeners import TEMPERATURES, coupled, crossed
    from aer_jax.annotation.prompts import FOLDER, load_prompt
    from aer_jax.annotation.task import AnnotationTask
    from aer_jax.data.dataset import open_dataset

    dataset = open_dataset(args.data)
    prompt = load_prompt(dataset.classes, args.prompts or FOLDER)
    task = AnnotationTask(dataset, prompt, args.transcript, args.speaker, args.context)
    if args.listeners_plan == "paper":
        chosen = coupled(args.listeners, prompt.personas)
    else:
        chosen = crossed(args.listeners, prompt.personas, args.temperatures or TEMPERATURES)
    engine = _engine(args, task)
    result = annotate(task, engine, chosen, args.out, limit=args.limit, only_missing=args.only_missing)
    show(args, result, _summary(result))
    refuse_without_votes(result)


def _summary(result: dict[str, Any]) -> str:
    out = result["journal"]
    if not result["utterances"]:
        return f"{out}: every clip has a vote"
    answers = result["labelled"] + result["unparsed"] + result["failed"]
    text = (
        f"{out}: {result['labelled']} votes of {answers} answers, {result['unparsed']} unparsed "
        f"({result['unparsed_share']:.1%}), {result['failed']} failed"
    )
    if result["given_up"]:
        text += f", of which {result['given_up']} failed three times and are not asked again"
    if result["clips_without_vote"]:
        text += (
            f"\n{result['clips_without_vote']} clips were asked about and have no vote; to ask about them again, add "
            "--only-missing and --answers constrained, --engine exact or more --listeners"
        )
    return text


def _engine(args: argparse.Namespace, task: AnnotationTask) -> Engine:
    from aer_jax.annotation.engines import open_engine

    options: dict[str, Any] = {}
    if args.settings and args.engine != "exact":
        raise UserError(f"{args.settings[0]} is a setting of --engine exact; leave it out.")
    if args.engine == "transformers":
        options = {name: getattr(args, name) for name in ("workers", "batch", "timeout")}
        options["constrained"] = args.answers == "constrained"
    elif args.engine == "openai":
        if args.answers == "constrained":
            raise UserError("servers have no common way to constrain an answer; leave --answers constrained out.")
        options = {name: getattr(args, name) for name in ("base_url", "concurrency", "timeout", "request")}
        options["send_licensed"] = args.send_licensed_audio
    else:
        if args.answers == "free":
            raise UserError("--engine exact has the labels' own probabilities; leave --answers free out.")
        options = {"batch": args.batch} | _exact_settings(args.settings)
    return open_engine(args.engine, args.model, task, **options)


def _exact_settings(settings: Sequence[str]) -> dict[str, Any]:
    start_jax()
    from aer_jax.config import load_config

    for setting in settings:
        if not setting.startswith(("mesh.", "model.dtype=")):
            raise UserError(f"{setting} is no setting of --engine exact; it has mesh.* and model.dtype.")
    config = load_config(None, settings)
    return {"mesh": config.mesh, "dtype": config.model.dtype}


def _temperatures(text: str) -> tuple[float, ...]:
    return tuple(map(real(Range(0, 2)), text.split(",")))


def proxies(args: argparse.Namespace) -> None:
    from aer_jax.data.dataset import open_dataset
    from aer_jax.evaluation.raters.quality import quality
    from aer_jax.reports.votes_text import text

    result = quality(open_dataset(args.data), args.journal, args.exact, args.group)
    said = text(result)
    if args.out:
        from aer_jax.reports.votes_figure import write_quality

        said += f"\n\n{write_quality(args.out, result)}: the figures, and all of this in proxies.json"
    show(args, result, said)


def add(command: Command) -> None:
    """Define annotate, proxies."""
    _add_annotate(command)
    _add_proxies(command)


def _add_annotate(command: Command) -> None:
    sub = command(
        annotate,
        "ask an audio-language model for synthetic votes",
        "annotate --data data/crema_d --model Qwen2-Audio-7B-Instruct --out data/crema_d.jsonl",
    )
    sub.add_argument("--data", type=Path, required=True)
    sub.add_argument(
        "--model",
        required=True,
        help="checkpoint directory, or a hub id: owner/name or owner/name@revision; Qwen2-Audio or, with transformers, "
        "another that takes audio; openai: the server's name for it",
    )
    sub.add_argument("--out", type=Path, required=True, help="the journal; one that exists is continued")
    sub.add_argument(
        "--engine",
        choices=ENGINES,
        default="transformers",
        help="PyTorch processes (default), a server of the OpenAI kind that takes audio, or label likelihoods in JAX",
    )
    sub.add_argument(
        "--answers",
        choices=("free", "constrained"),
        help="whatever the model says, parsed (default), or labels alone; exact is constrained by nature",
    )
    _add_listeners(sub.add_argument_group("listeners"))
    _add_work(sub.add_argument_group("work"))
    _add_server(sub.add_argument_group("openai"))


def _add_listeners(who: argparse._ArgumentGroup) -> None:
    who.add_argument(
        "--listeners", type=whole(Range(1, 10_000)), default=8, help="synthetic listeners per utterance (8)"
    )
    who.add_argument(
        "--listeners-plan",
        choices=("crossed", "paper"),
        default="crossed",
        help="personas and temperatures crossed (default), or the paper's five pairs of them",
    )
    who.add_argument(
        "--temperatures",
        type=_temperatures,
        metavar="T,T",
        help="of the crossed plan (0.2,0.4,0.6,0.8,1.0)",
    )
    who.add_argument("--prompts", type=Path, help="folder with system.txt, question.txt, personas.txt of your own")
    who.add_argument("--no-transcript", dest="transcript", action="store_false", help="do not quote the words")
    who.add_argument("--speaker", action="store_true", help="name the speaker")
    who.add_argument(
        "--context", type=whole(Range(0, 1000)), default=0, metavar="TURNS", help="quote the turns before (0)"
    )


def _add_work(how: argparse._ArgumentGroup) -> None:
    how.add_argument("--limit", type=whole(Range(1, 10**9)), help="number of utterances, from the first (all)")
    how.add_argument(
        "--only-missing",
        action="store_true",
        help="ask only about clips that have no vote in --out yet; another --engine or --answers may then go on with "
        "a journal, each line says which it was",
    )
    how.add_argument(
        "--workers", type=whole(Range(1, 1000)), default=1, help="transformers: processes, one GPU each (1)"
    )
    how.add_argument(
        "--batch", type=whole(COUNT), default=16, help="questions, or utterances with exact, at a time (16)"
    )
    how.add_argument(
        "--timeout",
        type=real(Range(0, 1e6, above=True)),
        default=600,
        help="seconds a batch or a request may take (600)",
    )
    how.add_argument("settings", nargs="*", metavar="key=value", help="exact: mesh.fsdp=8, model.dtype=bfloat16")


def _add_server(server: argparse._ArgumentGroup) -> None:
    server.add_argument(
        "--base-url", default="", help="of the server, for instance http://localhost:8000/v1; or OPENAI_BASE_URL"
    )
    server.add_argument(
        "--concurrency", type=whole(Range(1, 10_000)), default=8, help="requests under way at a time (8)"
    )
    server.add_argument(
        "--request",
        default="",
        metavar="FIELD=...",
        help="fields of a request left out, named otherwise or set: "
        "seed=,max_tokens=max_completion_tokens,reasoning_effort=low",
    )
    server.add_argument(
        "--send-licensed-audio", action="store_true", help="you may send this corpus' licensed audio to that server"
    )


def _add_proxies(command: Command) -> None:
    sub = command(
        proxies,
        "measure the quality of synthetic votes against human ones",
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
