"""Predictions per second: aer_jax next to a transformers loop with peft's adapters and the paper's head in torch.nn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aer_jax.bench.driver import (
    AER_JAX,
    MEMORY,
    NAMES,
    PYTORCH,
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
from aer_jax.bench.train import comparable
from aer_jax.config import Config
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError

CLIPS, PASSES = 32, 2


def bench_predict(config: Config, clips: int = CLIPS, passes: int = PASSES) -> dict[str, Any]:
    """Time the prediction of the first `clips` test clips of `config.data.dataset` by untrained adapters and head.

    Args:
        config: as for `bench_train`; `train.microbatch` are predicted at a time.
        clips: how many.
        passes: how many of each side are timed, in turns; each follows one that is not, as in `bench_train`.

    Returns:
        sides: name -> {seconds: [one per pass], cpu_seconds, utterances_per_second in the median pass, peak_bytes,
            probs_error}.
        ratio_to_paper_pytorch and for the others, cpu_ratio_..., first_seconds (of aer_jax's first pass, which
            compiles), and what the bench was run on.

    Raises:
        UserError: there are no test clips, or a package is missing.
        Disagreement: probabilities differ by more than `tolerance`.
    """
    config = comparable(config)
    dataset = open_dataset(config.data.dataset)
    ids = dataset.splits["test"][:clips]
    if not ids:
        raise UserError(f"{dataset.path} has no test clips to predict; look at its report.md.")

    def ask(worker: BenchWorker, way: str, turn: int) -> dict[str, Any]:
        worker.ask(way)  # not timed: others used the machine before
        return worker.ask(way)

    with shared_files(config) as files, BenchWorker("jax_predict", files | {"ids": ids}, MEMORY) as worker:
        job = files | {"ids": ids} | {name: worker.about[name] for name in ("texts", "lora", "classes")}
        pytorch = (lambda: BenchWorker("pytorch_predict", job), list(PYTORCH))
        answers, abouts = take_turns((worker, [AER_JAX]), [pytorch], ask, passes, "bench predict")
    sides = {}
    reference_nk = np.array(answers[AER_JAX][0]["probs"])
    for way, given in answers.items():
        error = max(float(np.abs(np.array(answer["probs"]) - reference_nk).max()) for answer in given)
        sides[way] = speed(given, len(ids)) | {"probs_error": error}
    check_agreement("probabilities", sides, "probs_error", TOLERANCE[config.model.dtype], NAMES)
    return {
        "bench": "predict",
        **facts(config, abouts),
        "batch": config.train.microbatch,
        "clips": len(ids),
        "passes": passes,
        "first_seconds": abouts[0]["first_seconds"],
        "sides": sides,
        **ratios(sides, "_pytorch"),
    }


def table(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of what `bench_predict` returned."""
    note = (
        f"{result['clips']} clips, {result['batch']} at a time, {result['dtype']}, on {result['device']}; median of "
        f"{result['passes']} passes; aer_jax's first pass, which compiles, took {result['first_seconds']:.0f} s"
    )
    return speed_rows(result["sides"], NAMES, {"probabilities differ by": show_error("probs_error")}), note
