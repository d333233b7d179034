"""Synthetic votes per second: exact likelihoods in one pass, next to transformers' loop over labels and sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aer_jax.bench.driver import (
    AER_JAX,
    MEMORY,
    TOLERANCE,
    BenchWorker,
    check_agreement,
    facts,
    ratios,
    shared_files,
    show_error,
    speed,
    speed_rows,
    take_turns,
)
from aer_jax.config import Config
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError

CLIPS, PASSES = 16, 2
LISTENERS = 8  # the default of `aer-jax annotate`
EVERY = 16  # PyTorch gets each 16th clip alone: it encodes 30 s of any, and so needs the same time for all
PYTORCH = {
    "loop": "transformers, one pass per label",
    "careful": "transformers, the same, each clip encoded once per batch",
    "sampled": "transformers, sampled answers",
}
NAMES = {AER_JAX: "aer_jax, exact"} | PYTORCH


def bench_annotate(config: Config, clips: int = CLIPS, passes: int = PASSES) -> dict[str, Any]:
    """Time votes of `LISTENERS` listeners about clips of `config.data.dataset`.

    Args:
        config: `model.checkpoint` and `model.dtype` answer; `train.microbatch` clips, or rows of PyTorch's, at a time.
        clips: how many, evenly taken.
        passes: how often each side has its clips, in turns, after a pass (of PyTorch, a batch) that is not timed.

    Returns:
        sides: name -> {clips, seconds: [one per pass], cpu_seconds, utterances_per_second in the median pass,
            votes_per_second (of one listener about one utterance), peak_bytes, error (of the log-likelihoods in nats,
            relative beyond 1; None where nothing but samples comes), parsed (share of the sampled answers that are
            labels)}.
        ratio_to_loop and for the others, cpu_ratio_..., first_seconds (of aer_jax's first pass, which loads and
            compiles), and what the bench was run on.

    Raises:
        UserError: a number is below 1, or a package is missing.
        Disagreement: log-likelihoods differ by more than `tolerance`.
    """
    if clips < 1:
        raise UserError(f"--clips must be at least 1, not {clips}.")
    dataset = open_dataset(config.data.dataset)
    every = list(dataset.utterances)
    ids = every[:: max(1, len(every) // clips)][:clips]
    with shared_files(config) as files, BenchWorker("jax_annotate", files | {"ids": ids}, MEMORY) as worker:
        job = files | {"ids": ids[::EVERY], "listeners": LISTENERS}
        job |= {name: worker.about[name] for name in ("labels", "label_mask")}
        pytorch = (lambda: BenchWorker("pytorch_annotate", job), list(PYTORCH))
        answers, abouts = take_turns(
            (worker, [AER_JAX]), [pytorch], lambda worker, way, turn: worker.ask(way), passes, "bench annotate"
        )
    reference_npl = np.array(answers[AER_JAX][0]["log_likelihoods"])
    sides = {way: figures(way, given, reference_npl) for way, given in answers.items()}
    check_agreement("log-likelihoods", sides, "error", TOLERANCE[config.model.dtype], NAMES)
    return {
        "bench": "annotate",
        **facts(config, abouts),
        "batch": config.train.microbatch,
        "listeners": LISTENERS,
        "personas": reference_npl.shape[1],
        "labels": reference_npl.shape[2],
        "passes": passes,
        "first_seconds": abouts[0]["first_seconds"],
        "sides": sides,
        **ratios(sides),
    }


def figures(way: str, answers: Sequence[Mapping[str, Any]], reference_npl: np.ndarray) -> dict[str, Any]:
    """One side's figures, its log-likelihoods compared with aer_jax's."""
    expected_npl = reference_npl[:: 1 if way == AER_JAX else EVERY]
    side = speed(answers, len(expected_npl)) | {"clips": len(expected_npl)}
    error = None
    if way != "sampled":
        error = max(difference(answer["log_likelihoods"], expected_npl) for answer in answers)
    rate = LISTENERS * side["utterances_per_second"]
    return side | {"votes_per_second": rate, "error": error, "parsed": answers[0].get("parsed")}


def difference(values: Sequence[Any], expected: np.ndarray) -> float:
    """The worst of some log-likelihoods: in nats, relative where what is expected is beyond 1."""
    error = np.abs(np.reshape(values, expected.shape) - expected)
    return float((error / np.maximum(1, np.abs(expected))).max())


def table(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of what `bench_annotate` returned."""
    sides = result["sides"]
    columns = {
        "utterance x listeners/s": lambda side: f"{side['votes_per_second']:.3g}",
        "log-likelihoods differ by": show_error("error"),
    }
    note = (
        f"{result['listeners']} listeners of {result['personas']} personas, {result['labels']} labels; "
        f"{sides[AER_JAX]['clips']} clips, PyTorch {sides['loop']['clips']} of them, {result['batch']} at a time, "
        f"{result['dtype']}, on {result['device']}; median of {result['passes']} passes; aer_jax's first, which loads "
        f"and compiles, took {result['first_seconds']:.0f} s; {sides['sampled']['parsed']:.0%} of the sampled answers "
        "were labels"
    )
    return speed_rows(sides, NAMES, columns), note
