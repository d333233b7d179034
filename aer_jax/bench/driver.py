"""Benchmark driver: several ways to do the same work take turns in worker processes and must agree."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aer_jax.base.hub import find_checkpoint
from aer_jax.config import Config, to_yaml
from aer_jax.errors import UserError
from aer_jax.worker_process import WorkerDied, WorkerProcess

AER_JAX = "ours"  # its name in the JSON of results
PYTORCH = {
    "paper": "PyTorch, the paper's way",
    "careful": "PyTorch, careful",
    "cut": "PyTorch, careful, windows cut to the longest clip",
}
NAMES = {AER_JAX: "aer_jax"} | PYTORCH
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}  # of an accelerator, instead of three quarters


class Disagreement(UserError):
    """Two ways computed different results from the same clips, so their times are not comparable."""

    exit_code = 1


class BenchWorker(WorkerProcess):
    """A module of `aer_jax.bench.workers` in a separate process."""

    def __init__(self, module: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None):
        self.module = module
        command = [sys.executable, "-m", f"aer_jax.bench.workers.{module}"]
        hint = "a smaller train.microbatch may help"
        super().__init__(command, job, extra="bench", hint=hint, environment=environment)

    def ask(self, message: Any, timeout: float | None = None) -> Any:
        """See `WorkerProcess`; a death is a sentence for the user."""
        try:
            return super().ask(message, timeout)
        except WorkerDied as death:
            raise UserError(f"the bench's worker {self.module} is gone: {death}") from None


@contextmanager
def shared_files(config: Config) -> Iterator[dict[str, str]]:
    """The part of a job that names files: the settings, and where aer_jax leaves adapters and head for PyTorch."""
    model = dataclasses.replace(config.model, checkpoint=str(find_checkpoint(config.model.checkpoint)))
    with tempfile.TemporaryDirectory(prefix="aer_jax_bench_") as folder:
        settings = Path(folder) / "config.yaml"
        settings.write_text(to_yaml(dataclasses.replace(config, model=model)))
        yield {"config": str(settings), "trainables": str(Path(folder) / "trainables.safetensors")}


def take_turns(
    aer_jax: tuple[BenchWorker, Sequence[str]],
    others: Sequence[tuple[Callable[[], BenchWorker], Sequence[str]]],
    ask: Callable[[BenchWorker, str, int], Any],
    turns: int,
    title: str,
) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """Run the workers' ways in turns, so that other load slows all of them alike.

    An accelerator has no room for several models: there a worker has all its turns in a row, and ends.

    Args:
        aer_jax: its running worker, which is ended, and the ways of it.
        others: what starts each other worker, and its ways.
        ask: the answer of a worker about one turn (by number) of one way.

    Returns:
        way -> answers, and what each worker says about itself.
    """

    def running() -> AbstractContextManager[BenchWorker]:
        return closing(aer_jax[0])

    entries: list[tuple[Callable[[], AbstractContextManager[BenchWorker]], Sequence[str]]] = [(running, aer_jax[1])]
    entries += others
    at_once = [entries] if aer_jax[0].about.get("device", "cpu") == "cpu" else [[entry] for entry in entries]
    answers: dict[str, list[Any]] = {way: [] for _, ways in entries for way in ways}
    abouts = []
    with tqdm(total=turns * len(answers), desc=title, unit="turn") as bar:
        for group in at_once:
            with ExitStack() as stack:
                workers = [(stack.enter_context(start()), ways) for start, ways in group]
                for turn in range(turns):
                    for worker, ways in workers:
                        for way in ways:
                            answers[way].append(ask(worker, way, turn))
                            bar.update()
                abouts += [worker.about for worker, _ in workers]
    return answers, abouts


def speed(answers: Sequence[Mapping[str, Any]], clips: int) -> dict[str, Any]:
    """Speed figures of the median pass over `clips` clips."""
    seconds = [answer["seconds"] for answer in answers]
    return {
        "seconds": seconds,
        "cpu_seconds": [answer["cpu_seconds"] for answer in answers],
        "utterances_per_second": clips / statistics.median(seconds),
        "peak_bytes": max(answer["peak_bytes"] for answer in answers),
    }


def times_as_fast(sides: Mapping[str, Mapping[str, Any]], way: str) -> tuple[float, float]:
    """How many times as fast as `way` aer_jax is: by the wall, and by processor time of all cores."""
    own, other = sides[AER_JAX], sides[way]
    work = [statistics.mean(side["cpu_seconds"]) / side.get("clips", 1) for side in (own, other)]
    return own["utterances_per_second"] / other["utterances_per_second"], work[1] / work[0]


def ratios(sides: Mapping[str, Mapping[str, Any]], suffix: str = "") -> dict[str, float]:
    """`times_as_fast` of every way but aer_jax's, by key of the result."""
    both = {way: times_as_fast(sides, way) for way in sides if way != AER_JAX}
    return {f"ratio_to_{way}{suffix}": wall for way, (wall, _) in both.items()} | {
        f"cpu_ratio_to_{way}{suffix}": work for way, (_, work) in both.items()
    }


def facts(config: Config, abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Provenance of a result."""
    return {
        "checkpoint": config.model.checkpoint,
        "dataset": str(Path(config.data.dataset)),
        "dtype": config.model.dtype,
        "device": abouts[0]["device"],
        "versions": {name: version for about in abouts for name, version in about["versions"].items()},
        "tolerance": TOLERANCE[config.model.dtype],
    }


def check_agreement(
    what: str, sides: Mapping[str, Mapping[str, Any]], key: str, tolerance: float, names: Mapping[str, str]
) -> None:
    """Times of ways that compute something else are not shown; an error of None means that nothing is comparable."""
    for way, side in sides.items():
        error = side[key]
        if error is not None and not error <= tolerance:
            raise Disagreement(
                f"{what} of {names.get(way, way)} differ from aer_jax's by {error:.1e} ({tolerance:.0e} is allowed), "
                "so no time is reported."
            )


def speed_rows(
    sides: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
) -> list[dict[str, str]]:
    """A table's rows: speed and ratios of each way, then columns of the bench's own."""
    rows = []
    for way, side in sides.items():
        wall, work = times_as_fast(sides, way)
        row = {
            "": names.get(way, way),
            "utterances/s": f"{side['utterances_per_second']:.3g}",
            "aer_jax is faster by": f"{wall:.2f}",
            "by processor time": f"{work:.2f}",
        }
        rows.append(row | {name: show(side) for name, show in columns.items()})
    return rows


def show_error(key: str) -> Callable[[Mapping[str, Any]], str]:
    """A column of differences from aer_jax, empty for aer_jax itself."""
    return lambda side: "-" if side[key] is None else f"{side[key]:.0e}" if side[key] else ""
