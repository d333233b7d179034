"""The predict command: which recordings, in which format, and what is printed to stderr meanwhile."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from aer_jax.config import Config, ModelConfig
from aer_jax.data.audio.read import BadAudio
from aer_jax.errors import UserError
from aer_jax.files.tables import counted
from aer_jax.inference.formats import FORMATS
from aer_jax.inference.model import Model
from aer_jax.inference.sources import Source, find_audio, format_skipped, read_transcripts, with_transcripts
from aer_jax.inference.windows import windowing
from aer_jax.training.predictor import WaveformPredictor, zero_shot_predictor
from aer_jax.training.run import open_run

_STDIN = Path("-")


def predict(args: argparse.Namespace) -> int:
    """Predict what `args` names; 2 where a recording could not be used, 0 otherwise."""
    if args.run and args.classes:
        raise UserError("--classes goes with --model; a run has the classes that it was trained on.")
    windowing(args.window, args.hop)
    sources = _sources(args)
    if args.figure:
        from aer_jax.reports.pages import timeline  # needs the extra "report"

        timeline.check_figure(args.figure, len(sources))
    started = time.monotonic()
    model = Model(open_run(args.run) if args.run else _zero_shot(args))
    loaded = time.monotonic()
    if (intervals := model.intervals) and intervals.are_trivial:
        _say(f"the intervals say nothing: {intervals.n} validation clips are too few for {intervals.level:.0%}.")
    if intervals is None and args.run:
        _say(f"no intervals: {args.run} has no readable band.json for its best checkpoint; `aer-jax evaluate` makes it")
    predictions, bad, seconds = [], 0, 0.0
    form = FORMATS[_format(args)](model.classes, [source.name for source in sources])
    with ExitStack() as stack:
        out = stack.enter_context(args.out.open("w", encoding="utf-8")) if args.out else sys.stdout

        def write(lines: Iterable[str]) -> None:
            for line in lines:
                tqdm.write(line, file=out)  # without breaking the bar
            out.flush()

        write(form.heading)
        bar = stack.enter_context(tqdm(total=len(sources), desc="predict", unit="file"))
        for prediction in model.stream(sources, args.window, args.hop):
            if isinstance(prediction, BadAudio):
                bad += 1
                tqdm.write(f"aer-jax: {prediction}", file=sys.stderr)
            else:
                seconds += prediction.seconds
                write(form.lines(prediction))
                predictions += [prediction] if args.figure else []
            bar.update()
    _say(_throughput(len(sources) - bad, seconds, time.monotonic() - loaded, loaded - started))
    if args.out:
        _say(f"wrote {args.out}")
    if args.figure and predictions:
        timeline.write_figure(
            [prediction for prediction in predictions if prediction.timeline] or predictions, args.figure
        )
    return 2 if bad else 0


def _zero_shot(args: argparse.Namespace) -> WaveformPredictor:
    classes = [name.strip() for name in (args.classes or "").split(",") if name.strip()]
    if len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise UserError("--model needs --classes: two or more labels with commas between them, each once.")
    return zero_shot_predictor(Config(model=ModelConfig(checkpoint=args.model)), classes)


def _format(args: argparse.Namespace) -> str:
    by_ending = {".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl"}.get(args.out.suffix.lower()) if args.out else None
    return args.format or ("jsonl" if args.json else by_ending or "table")


def _sources(args: argparse.Namespace) -> list[Source]:
    transcripts = read_transcripts(args.transcripts) if args.transcripts else {}
    skipped: Counter[str] = Counter()
    sources = with_transcripts(find_audio((file for file in args.files if file != _STDIN), skipped), transcripts)
    if skipped:
        _say(f"left out of the folders, not audio by their endings: {format_skipped(skipped)}")
    if args.transcripts:
        known = sum(bool(source.transcript) for source in sources)
        first = f"; the first file that it names is {next(iter(transcripts))}" if transcripts and not known else ""
        _say(f"{args.transcripts} has words for {known} of {len(sources)} files{first}")
    if _STDIN in args.files:
        sources.append(Source("-", sys.stdin.buffer.read()))
    if args.transcript:
        sources = [dataclasses.replace(source, transcript=args.transcript) for source in sources]
    return sources


def _throughput(files: int, seconds: float, busy: float, loading: float) -> str:
    return (
        f"{counted(files, 'recording')}, {seconds / 60:.1f} min of audio, in {busy:.1f} s: "
        f"{files / busy:.1f} per second, {seconds / busy:.0f} x real time "
        f"(compiling included; loading took {loading:.1f} s)"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr)
