"""The commands: parse, call, print. What they do lies in the packages that they call."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aer_jax.errors import UserError

# Heavy packages are imported by the command that needs them, so that --help answers at once.


def prepare(args: argparse.Namespace) -> None:
    from aer_jax.corpora import read_corpus
    from aer_jax.data.prepare import prepare

    classes = args.classes.split(",") if args.classes else None
    choices = {name: getattr(args, name) for name in ("excited", "multi_label", "improvised", "audio")}
    corpus = read_corpus(args.corpus, args.root, classes, args.lenient, **choices)
    if args.annotations:
        from aer_jax.proxies.paper_annotations import read_annotations, write_journal

        synthetic = read_annotations(args.annotations, corpus)
    if corpus.licensed:
        print(
            f"aer-jax: {corpus.name} is licensed: keep its audio, words and votes, and this dataset, on your machines.",
            file=sys.stderr,
        )
    dataset = prepare(corpus, args.out, classes, args.seed, args.split, args.outside)
    result: dict[str, Any] = {"dataset": str(dataset.path), "classes": list(dataset.classes)}
    counts = {part: len(ids) for part, ids in dataset.splits.items()}
    text = f"{dataset.path}: {', '.join(f'{n} {part}' for part, n in counts.items())}; see {dataset.path / 'report.md'}"
    if args.annotations:
        journal = write_journal(synthetic, dataset)
        result["journal"] = str(journal)
        text += f"; synthetic votes for labels.journal: {journal}"
    show(args, result | counts, text)


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


def train(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    config = load_config(args.config, args.settings)
    start_jax()
    from aer_jax.training.loop import train
    from aer_jax.training.processes import joined
    from aer_jax.training.profile import parse_window

    window = parse_window(args.profile) if args.profile else None
    with joined() as first:
        run = train(config, resume=args.resume, profile=window)
        if first:
            show(args, {"run": str(run.path)}, f"{run.path}: done; next, `aer-jax evaluate --run {run.path}`")


def evaluate(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.pipeline import evaluate_run
    from aer_jax.reports.table import summary_table
    from aer_jax.training.processes import joined

    with joined() as first:
        metrics = evaluate_run(args.run, args.split)
        if first:
            show(args, metrics, summary_table([args.run], args.split))


def predict(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.training.predictor import Predictor, load_clip
    from aer_jax.training.run import open_run

    audio = [load_clip(file) for file in args.files]
    predictor = Predictor(open_run(args.run))
    for file, probs in zip(args.files, predictor.waveforms(audio, [args.transcript] * len(audio)), strict=True):
        named = {label: round(float(p), 6) for label, p in zip(predictor.classes, probs, strict=True)}
        shares = "  ".join(f"{label} {p:.3f}" for label, p in named.items())
        show(args, {"file": str(file), "probs": named}, f"{file}  {shares}")


def report(args: argparse.Namespace) -> None:
    from aer_jax.reports.html import write_report
    from aer_jax.reports.table import summary_table

    write_report(args.run, args.out, args.split)
    show(args, {"report": str(args.out)}, f"{summary_table(args.run, args.split)}\n\n{args.out}")


def augmented(args: argparse.Namespace) -> None:
    from aer_jax.reports.augmented import write_augmented

    write_augmented(args.run, args.out, args.samples, args.licensed)
    show(args, {"page": str(args.out)}, str(args.out))


def export(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.export import export

    written = export(args.run, args.format.split(","), args.out)
    show(args, {name: str(path) for name, path in written.items()}, "\n".join(map(str, written.values())))


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


def plan(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    config = load_config(args.config, args.settings)
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever is here, the plan is for something else
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # a program for chips that are not here cannot be read back
    start_jax()
    from aer_jax.scale import plan, plan_text

    make, say = (plan.sweep, plan_text.table) if args.sweep else (plan.plan, plan_text.text)
    result = make(config, args.topology, seconds=args.seconds, prompt=args.prompt)
    show(args, result, say(result))


def demo(args: argparse.Namespace) -> None:
    start_jax()
    from aer_jax.demo.demo import demo
    from aer_jax.reports.table import summary_table

    runs, page = demo(args.out)
    show(args, {"report": str(page)}, f"{summary_table(runs)}\n\nthe page: {page}")


def start_jax() -> None:
    """Compiled steps are kept between processes; a directory of the user's own choosing is respected."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax raises what it logs with a traceback
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aer_jax" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    devices = [device for kind in ("accel*", "vfio/*", "nvidia*") for device in Path("/dev").glob(kind)]
    if importlib.util.find_spec("libtpu") and not devices:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # libtpu serves `plan` alone here, and complains when it is asked


def show(args: argparse.Namespace, result: Any, text: str) -> None:
    """One JSON object a line for programs, or the text for people."""
    print(json.dumps(result) if args.json else text, flush=True)


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    top = argparse.ArgumentParser(
        prog="aer-jax",
        description="Votes about speech go in; a Qwen2-Audio that predicts emotion distributions, and an honest "
        "report, come out.",
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Callable[[argparse.Namespace], None], about: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__, help=about, description=about, epilog=f"example: aer-jax {example}")
        sub.set_defaults(run_command=run)
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = command(demo, "the whole way on the embedded toy corpus", "demo --out runs/demo")
    sub.add_argument("--out", type=Path, default=Path("runs/demo"))

    sub = command(
        prepare,
        "a corpus on disk -> a dataset directory",
        "prepare --corpus crema-d --root CREMA-D --out data/crema_d --classes angry,happy,neutral,sad",
    )
    sub.add_argument(
        "--corpus", required=True, help="crema-d, iemocap, msp-podcast, paper-json, manifest or toy (generated)"
    )
    sub.add_argument("--root", type=Path, help="where the corpus lies; the file, for paper-json and a manifest")
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
        "random, the paper's, which shares speakers. Default: official where there is one, else speakers",
    )
    sub.add_argument("--seed", type=int, default=0, help="of what the split draws")
    sub.add_argument("--lenient", action="store_true", help="skip and count lines that cannot be read")
    own = sub.add_argument_group("choices of one corpus")
    own.add_argument(
        "--excited", choices=("happy", "apart"), help="iemocap, paper-json: Excited counts as happy (default) or apart"
    )
    own.add_argument(
        "--multi-label",
        choices=("shared", "whole"),
        help="iemocap: each of k labels in an answer is 1/k of a vote (default) or a whole one",
    )
    own.add_argument("--improvised", action="store_true", default=None, help="iemocap: no scripted dialogues")
    own.add_argument("--audio", type=Path, help="paper-json: where the audio paths start; the file's folder without it")
    own.add_argument(
        "--annotations", type=Path, help="paper-json: synthetic annotations, turned into a journal in the dataset"
    )

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

    sub = command(train, "fine-tune; writes a run directory", "train --config configs/crema_d_mini.yaml train.epochs=2")
    sub.add_argument("--config", type=Path, help="YAML file; see aer_jax/config.py for every key")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="on top of the file, for instance seed=1")
    sub.add_argument("--resume", action="store_true", help="continue the run in out=; begin it where there is none yet")
    sub.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps for xprof, into RUN/profile")

    sub = command(evaluate, "predictions and metrics of a run", "evaluate --run runs/crema_d_mini")
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument("--split", default="test", choices=("train", "validation", "test"))

    sub = command(predict, "distributions for audio files", "predict --run runs/crema_d_mini a.wav b.flac --json")
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE")
    sub.add_argument("--transcript", default="", help="the words, where known; the same for all files")

    sub = command(report, "one HTML page about evaluated runs", "report --run runs/a runs/b --out report.html")
    sub.add_argument("--run", type=Path, required=True, nargs="+")
    sub.add_argument("--split", default="test", choices=("train", "validation", "test"))
    sub.add_argument("--out", type=Path, required=True)

    sub = command(
        augmented,
        "a page to see and hear what DiME-Aug added to a run's training clips",
        "augmented --run runs/crema_d_mini --out augmented.html",
    )
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument("--out", type=Path, required=True, help="the page; it carries the audio of the clips it shows")
    sub.add_argument("--samples", type=int, default=12, help="how many added clips it shows (12)")
    sub.add_argument("--licensed", action="store_true", help="for a licensed corpus too; the page must then stay here")

    sub = command(
        export,
        "a run's best model for PyTorch: a PEFT adapter, or merged weights for transformers",
        "export --run runs/crema_d_mini --format peft,merged --out exports/crema_d_mini",
    )
    sub.add_argument("--run", type=Path, required=True)
    sub.add_argument("--format", required=True, help="peft, merged, or both with a comma")
    sub.add_argument(
        "--out", type=Path, required=True, help="directory, must not exist; two formats go to OUT/peft and OUT/merged"
    )

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
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 for success, 2 and one sentence for wrong use or bad input, 75 for a run that was stopped."""
    top = parser()
    args, rest = top.parse_known_args(argv)
    # argparse gives up on positional arguments once a flag has come between them.
    if unknown := [word for word in rest if not hasattr(args, "settings") or word.startswith("-") or "=" not in word]:
        top.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        args.settings = [*args.settings, *rest]
    code = run(args)
    processes = sys.modules.get("aer_jax.training.processes")
    return processes.part(code) if processes else code


def run(args: argparse.Namespace) -> int:
    """The command, its exit code, and the sentence where it fails."""
    try:
        args.run_command(args)
    except UserError as error:
        print(f"aer-jax: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # who was reading has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a directory that may not be written: not ours to foresee at every line
        where = f" ({error.filename})" if error.filename else ""
        print(f"aer-jax: {error.strerror or error}{where}; make room or choose another place.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("aer-jax: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
