"""The command that predicts: which recordings, how the answers are written, what is said meanwhile."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from aer_jax.data.audio.read import BadAudio
from aer_jax.files.atomic import csv_line
from aer_jax.inference.model import Model
from aer_jax.inference.prediction import Prediction, Window
from aer_jax.inference.sources import Source, find_audio, format_skipped, read_transcripts, with_transcripts
from aer_jax.inference.windows import windowing
from aer_jax.reports.pages.timeline import check_figure, write_figure
from aer_jax.training.run import open_run

_STDIN = Path("-")
_NAME = 40  # a longer name is cut in the table, from the left


def predict(args: argparse.Namespace) -> int:
    """Predict what `args` names; 2 where a recording could not be used, 0 otherwise."""
    windowing(args.window, args.hop)
    sources = _sources(args)
    if args.figure:
        check_figure(args.figure, len(sources))
    began = time.monotonic()
    model = Model(open_run(args.run))
    loaded = time.monotonic()
    if (intervals := model.intervals) and intervals.are_trivial:
        _say(f"the intervals say nothing: {intervals.n} validation clips are too few for {intervals.level:.0%}.")
    if intervals is None:
        _say(f"{args.run} has no band.json for its best checkpoint, so no intervals; `aer-jax evaluate` makes one.")
    answers, bad, seconds = [], 0, 0.0
    lines = _FORMATS[_format(args)](model.classes, sources)
    with ExitStack() as stack:
        out = stack.enter_context(args.out.open("w", encoding="utf-8")) if args.out else sys.stdout

        def write(some: Iterable[str]) -> None:
            for line in some:
                tqdm.write(line, file=out)  # beside the bar
            out.flush()

        write(lines.heading)
        bar = stack.enter_context(tqdm(total=len(sources), desc="predict", unit="file"))
        for answer in model.stream(sources, args.window, args.hop):
            if isinstance(answer, BadAudio):
                bad += 1
                tqdm.write(f"aer-jax: {answer}", file=sys.stderr)
            else:
                seconds += answer.seconds
                write(lines.of(answer))
                answers += [answer] if args.figure else []
            bar.update()
    _say(_throughput(len(sources) - bad, seconds, time.monotonic() - loaded, loaded - began))
    if args.out:
        _say(f"wrote {args.out}")
    if args.figure and answers:
        write_figure([answer for answer in answers if answer.timeline] or answers, args.figure)
    return 2 if bad else 0


def _format(args: argparse.Namespace) -> str:
    """As asked, else by the ending of `--out`."""
    by_ending = {".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl"}.get(args.out.suffix.lower()) if args.out else None
    return args.format or ("jsonl" if args.json else by_ending or "table")


def _sources(args: argparse.Namespace) -> list[Source]:
    words = read_transcripts(args.transcripts) if args.transcripts else {}
    skipped: Counter[str] = Counter()
    sources = with_transcripts(find_audio((file for file in args.files if file != _STDIN), skipped), words)
    if skipped:
        _say(f"left out of the folders, not audio by their endings: {format_skipped(skipped)}")
    if args.transcripts:
        known = sum(bool(source.transcript) for source in sources)
        first = f"; the first file that it names is {next(iter(words))}" if words and not known else ""
        _say(f"{args.transcripts} has words for {known} of {len(sources)} files{first}")
    if _STDIN in args.files:
        sources.append(Source("-", sys.stdin.buffer.read()))
    if args.transcript:
        sources = [dataclasses.replace(source, transcript=args.transcript) for source in sources]
    return sources


@dataclasses.dataclass(frozen=True)
class _Lines:
    """A format: what stands first, and the lines of one answer."""

    heading: list[str]
    of: Callable[[Prediction], list[str]]


def _jsonl(classes: Sequence[str], sources: Sequence[Source]) -> _Lines:
    return _Lines([], lambda answer: [json.dumps(answer.to_json())])


def _csv(classes: Sequence[str], sources: Sequence[Source]) -> _Lines:
    """A line a recording; of one in windows a line a window. What is unknown is empty."""
    bounds = [f"{name}_{end}" for name in classes for end in ("low", "high")]

    def lines(answer: Prediction) -> list[str]:
        ends = [f"{p:.4f}" for pair in (answer.interval or {}).values() for p in pair] or [""] * len(bounds)
        parts = answer.timeline or [Window(0.0, answer.seconds, answer.probs, answer.ambiguity)]
        return [
            csv_line([answer.file, f"{part.start:.3f}", f"{part.end:.3f}", *_digits(part, classes), *ends])
            for part in parts
        ]

    return _Lines([csv_line(["file", "start", "end", *classes, "ambiguity", *bounds])], lines)


def _digits(part: Window, classes: Sequence[str]) -> list[str]:
    if part.probs is None or part.ambiguity is None:
        return [""] * (len(classes) + 1)
    return [f"{p:.6f}" for p in (*part.probs.values(), part.ambiguity)]


def _table(classes: Sequence[str], sources: Sequence[Source]) -> _Lines:
    width = min(_NAME, max(len(source.name) for source in sources))

    def lines(answer: Prediction) -> list[str]:
        name = answer.file if len(answer.file) <= _NAME else f"…{answer.file[1 - _NAME :]}"
        whole = Window(0.0, answer.seconds, answer.probs, answer.ambiguity)
        named = [(name, whole)]
        named += [(f"  {part.start:.1f} to {part.end:.1f} s", part) for part in answer.timeline]
        return [f"{name:<{width}}  {_shares(part, answer.interval)}" for name, part in named]

    return _Lines([], lines)


def _shares(part: Window, interval: dict[str, tuple[float, float]] | None) -> str:
    if part.probs is None or part.ambiguity is None:
        return "silent"
    ends = {name: f" ({low:.2f} to {high:.2f})" for name, (low, high) in (interval or {}).items()}
    shares = [f"{label} {p:.3f}{ends.get(label, '')}" for label, p in part.probs.items()]
    return "  ".join([*shares, f"ambiguity {part.ambiguity:.2f}"])


_FORMATS = {"jsonl": _jsonl, "csv": _csv, "table": _table}


def _throughput(files: int, seconds: float, busy: float, loading: float) -> str:
    return (
        f"{files} recordings, {seconds / 60:.1f} min of audio, in {busy:.1f} s: {files / busy:.1f} a second, "
        f"{seconds / busy:.0f} x real time (compiling included; loading took {loading:.1f} s)"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr)
