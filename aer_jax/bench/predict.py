"""Predictions a second: ours beside a transformers loop with peft's adapters and the paper's head in torch.nn."""

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
from aer_jax.bench.train import PYTORCH, Disagreement, comparable
from aer_jax.config import Config, to_yaml
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError

CLIPS, PASSES = 32, 2
NAMES = {
    "ours": "ours",
    "paper": "transformers, the paper's way",
    "careful": "transformers, careful",
    "cut": "transformers, careful, its 30 s cut open",
}
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of a probability


def bench_predict(config: Config, clips: int = CLIPS, passes: int = PASSES) -> dict[str, Any]:
    """Time the prediction of the first `clips` test clips of `config.data.dataset` by untrained adapters and head.

    Args:
        config: as for `bench_train`; `train.microbatch` are predicted at a time.
        clips: how many.
        passes: how many of each side are timed, in turns; each follows one that is not, as in `bench_train`.

    Returns:
        sides: name -> {seconds: [one a pass], utterances_per_second in the median pass, peak_bytes, probs_error}.
        ratio_to_paper_pytorch and for the others, cpu_ratio_..., first_seconds (our first pass, which compiles), and
        what the bench was run on.

    Raises:
        UserError: there are no test clips, or a package is missing.
        Disagreement: probabilities differ by more than `tolerance`.
    """
    config = comparable(config)
    dataset = open_dataset(config.data.dataset)
    ids = dataset.splits["test"][:clips]
    if not ids:
        raise UserError(f"{dataset.path} has no test clips to predict; look at its report.md.")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aer_jax_bench_")))
        (folder / "config.yaml").write_text(to_yaml(config))
        job = {
            "config": str(folder / "config.yaml"),
            "trainables": str(folder / "trainables.safetensors"),
            "ids": ids,
        }
        ours = stack.enter_context(BenchWorker("jax_predict", job, MEMORY))
        pytorch = job | {
            "checkpoint": str(find_checkpoint(config.model.checkpoint)),
            "dataset": config.data.dataset,
            "max_seconds": config.data.max_seconds,
            "dtype": config.model.dtype,
            "batch": config.train.microbatch,
            **{name: ours.about[name] for name in ("texts", "lora", "classes")},
        }

        def warm(side: BenchWorker, name: str) -> Any:
            """The second of two passes: others used the machine before the first."""
            side.ask(name)
            return side.ask(name)

        answers, theirs = compare(
            ours, lambda: BenchWorker("pytorch_predict", pytorch), list(NAMES), warm, passes, "bench predict"
        )
    sides, tolerance = {}, TOLERANCE[config.model.dtype]
    reference_nk = np.array(answers["ours"][0]["probs"])
    for name, each in answers.items():
        error = max(float(np.abs(np.array(answer["probs"]) - reference_nk).max()) for answer in each)
        refuse_other(name, error, tolerance)
        seconds = [answer["seconds"] for answer in each]
        sides[name] = {
            "seconds": seconds,
            "cpu_seconds": [answer["cpu_seconds"] for answer in each],
            "utterances_per_second": len(ids) / statistics.median(seconds),
            "probs_error": error,
            "peak_bytes": max(answer["peak_bytes"] for answer in each),
        }
    speed = {name: side["utterances_per_second"] for name, side in sides.items()}
    worked = {name: statistics.median(side["cpu_seconds"]) for name, side in sides.items()}
    return {
        "bench": "predict",
        "checkpoint": config.model.checkpoint,
        "dataset": str(dataset.path),
        "dtype": config.model.dtype,
        "batch": config.train.microbatch,
        "clips": len(ids),
        "passes": passes,
        "device": ours.about["device"],
        "versions": ours.about["versions"] | theirs["versions"],
        "tolerance": tolerance,
        "first_seconds": ours.about["first_seconds"],
        "sides": sides,
        **{f"ratio_to_{how}_pytorch": speed["ours"] / speed[how] for how in PYTORCH},
        **{f"cpu_ratio_to_{how}_pytorch": worked[how] / worked["ours"] for how in PYTORCH},
    }


def refuse_other(name: str, error: float, tolerance: float) -> None:
    """Times of a side that predicts something else are not shown."""
    if not error <= tolerance:
        raise Disagreement(
            f"probabilities of {NAMES[name]} differ from ours by {error:.1e} ({tolerance:.0e} is allowed), so no time "
            "is reported."
        )


def table(result: dict[str, Any]) -> str:
    """What `bench_predict` returned, as a table in Markdown."""
    fastest = result["sides"]["ours"]["utterances_per_second"]
    least = statistics.median(result["sides"]["ours"]["cpu_seconds"])
    rows = [
        {
            "": NAMES[name],
            "utterances/s": f"{side['utterances_per_second']:.2f}",
            "ours is faster by": f"{fastest / side['utterances_per_second']:.2f}",
            "by processor time": f"{statistics.median(side['cpu_seconds']) / least:.2f}",
            "probabilities differ by": "" if name == "ours" else f"{side['probs_error']:.0e}",
        }
        for name, side in result["sides"].items()
    ]
    return (
        f"{markdown(rows)}\n\n{result['clips']} clips, {result['batch']} at a time, {result['dtype']}, on "
        f"{result['device']}; median of {result['passes']} passes; our first pass, which compiles, took "
        f"{result['first_seconds']:.0f} s"
    )
