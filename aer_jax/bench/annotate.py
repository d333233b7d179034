"""Synthetic votes a second: exact likelihoods in one pass, beside transformers' loop over labels and sampling."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.base.hub import find_checkpoint
from aer_jax.bench.driver import MEMORY, BenchWorker, compare
from aer_jax.bench.tables import markdown
from aer_jax.bench.train import Disagreement
from aer_jax.config import Config, to_yaml
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError

CLIPS, PASSES = 16, 2
LISTENERS = 8  # as many as `aer-jax annotate` asks
EVERY = 16  # PyTorch is asked about each 16th clip alone: it hears 30 s of any, and so needs the same time for all
PYTORCH = {
    "loop": "transformers, each label a pass of its own",
    "careful": "transformers, the same, a clip heard once a batch",
    "sampled": "transformers, sampled answers",
}
NAMES = {"ours": "ours, exact"} | PYTORCH
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of a log-likelihood in nats; relative where it is beyond 1


def bench_annotate(config: Config, clips: int = CLIPS, passes: int = PASSES) -> dict[str, Any]:
    """Time votes of `LISTENERS` listeners about clips of `config.data.dataset`.

    Args:
        config: `model.checkpoint` and `model.dtype` are asked; `train.microbatch` clips, or rows of PyTorch's, at a
            time.
        clips: how many, evenly taken.
        passes: how often each side hears its clips, in turns, after a pass (of PyTorch, a batch) that is not timed.

    Returns:
        sides: name -> {clips, seconds: [one a pass], cpu_seconds, utterances_per_second in the median pass,
            votes_per_second (of one listener about one utterance), peak_bytes, error (of the log-likelihoods, see
            TOLERANCE; None where nothing but samples comes), parsed (share of the sampled answers that are labels)}.
        ratio_to_loop and for the others, cpu_ratio_..., first_seconds (our first pass, which loads and compiles), and
        what the bench was run on.

    Raises:
        UserError: a number is below 1, or a package is missing.
        Disagreement: log-likelihoods differ by more than `tolerance`.
    """
    if clips < 1:
        raise UserError(f"--clips must be at least 1, not {clips}.")
    dataset = open_dataset(config.data.dataset)
    every = list(dataset.utterances)
    ids = every[:: max(1, len(every) // clips)][:clips]
    heard = {name: ids if name == "ours" else ids[::EVERY] for name in NAMES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aer_jax_bench_")))
        (folder / "config.yaml").write_text(to_yaml(config))
        ours = stack.enter_context(
            BenchWorker("jax_annotate", {"config": str(folder / "config.yaml"), "ids": ids}, MEMORY)
        )
        job = {
            "checkpoint": str(find_checkpoint(config.model.checkpoint)),
            "dataset": config.data.dataset,
            "ids": ids[::EVERY],
            "dtype": config.model.dtype,
            "batch": config.train.microbatch,
            "listeners": LISTENERS,
            **{name: ours.about[name] for name in ("labels", "label_mask")},
        }
        answers, theirs = compare(
            ours, lambda: BenchWorker("pytorch_annotate", job), list(NAMES), BenchWorker.ask, passes, "bench annotate"
        )
    reference_npl, tolerance = np.array(answers["ours"][0]["log_likelihoods"]), TOLERANCE[config.model.dtype]
    sides = {}
    for name, each in answers.items():
        error = None
        if name != "sampled":
            expected_npl = reference_npl[:: 1 if name == "ours" else EVERY]
            error = max(difference(answer["log_likelihoods"], expected_npl) for answer in each)
            refuse_other(name, error, tolerance)
        seconds = [answer["seconds"] for answer in each]
        speed = len(heard[name]) / statistics.median(seconds)
        sides[name] = {
            "clips": len(heard[name]),
            "seconds": seconds,
            "cpu_seconds": [answer["cpu_seconds"] for answer in each],
            "utterances_per_second": speed,
            "votes_per_second": LISTENERS * speed,
            "peak_bytes": max(answer["peak_bytes"] for answer in each),
            "error": error,
            "parsed": each[0].get("parsed"),
        }
    speed = {name: side["utterances_per_second"] for name, side in sides.items()}
    worked = {name: statistics.median(side["cpu_seconds"]) / side["clips"] for name, side in sides.items()}
    personas, labels = reference_npl.shape[1:]
    return {
        "bench": "annotate",
        "checkpoint": config.model.checkpoint,
        "dataset": str(dataset.path),
        "dtype": config.model.dtype,
        "batch": config.train.microbatch,
        "listeners": LISTENERS,
        "personas": personas,
        "labels": labels,
        "passes": passes,
        "device": ours.about["device"],
        "versions": ours.about["versions"] | theirs["versions"],
        "tolerance": tolerance,
        "first_seconds": ours.about["first_seconds"],
        "sides": sides,
        **{f"ratio_to_{how}": speed["ours"] / speed[how] for how in PYTORCH},
        **{f"cpu_ratio_to_{how}": worked[how] / worked["ours"] for how in PYTORCH},
    }


def difference(found: Any, expected: np.ndarray) -> float:
    """The worst of some log-likelihoods: in nats, relative where what is expected is beyond 1."""
    found = np.reshape(found, expected.shape)
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


def refuse_other(name: str, error: float, tolerance: float) -> None:
    """Times of a side that finds other likelihoods are not shown."""
    if not error <= tolerance:
        raise Disagreement(
            f"log-likelihoods of {NAMES[name]} differ from ours by {error:.1e} ({tolerance:.0e} is allowed), so no "
            "time is reported."
        )


def table(result: dict[str, Any]) -> str:
    """What `bench_annotate` returned, as a table in Markdown."""
    rows = []
    for name, side in result["sides"].items():
        ours = name == "ours"
        rows.append(
            {
                "": NAMES[name],
                "utterances/s": f"{side['utterances_per_second']:.3g}",
                "utterance x listeners/s": f"{side['votes_per_second']:.3g}",
                "ours is faster by": f"{1 if ours else result[f'ratio_to_{name}']:.1f}",
                "by processor time": f"{1 if ours else result[f'cpu_ratio_to_{name}']:.1f}",
                "log-likelihoods differ by": "" if ours else "-" if side["error"] is None else f"{side['error']:.0e}",
            }
        )
    sides, parsed = result["sides"], result["sides"]["sampled"]["parsed"]
    return (
        f"{markdown(rows)}\n\n{result['listeners']} listeners of {result['personas']} personas, {result['labels']} "
        f"labels; {sides['ours']['clips']} clips, PyTorch {sides['loop']['clips']} of them, {result['batch']} at a "
        f"time, {result['dtype']}, on {result['device']}; median of {result['passes']} passes; our first, "
        f"which loads and compiles, took {result['first_seconds']:.0f} s; {parsed:.0%} of the sampled answers were "
        "labels"
    )
