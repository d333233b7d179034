"""Worker process for a step of an experiment that needs the devices.

python -m aer_jax.experiments.worker trial CONFIG RUN
python -m aer_jax.experiments.worker annotate DATASET MODEL JOURNAL LISTENERS ANSWERS DTYPE
"""

from __future__ import annotations

import sys
from pathlib import Path

from aer_jax.errors import UserError
from aer_jax.jax_setup import start_jax


def trial(config: str, run: str) -> None:
    """Train, or go on training, and evaluate."""
    from aer_jax.training.signals import stop_at_start

    with stop_at_start():
        start_jax()
        from aer_jax.config import load_config
        from aer_jax.inference.evaluate_run import evaluate_run
        from aer_jax.training.trainer import train

        train(load_config(config), resume=True)
    evaluate_run(run)


def annotate(data: str, model: str, journal: str, listeners: str, answers: str, dtype: str) -> None:
    """Ask crossed listeners, or go on asking; see `aer-jax annotate`."""
    from aer_jax.annotation.annotate import annotate, refuse_without_votes
    from aer_jax.annotation.engines import open_engine
    from aer_jax.annotation.listeners import crossed
    from aer_jax.annotation.prompts import load_prompt
    from aer_jax.annotation.task import AnnotationTask
    from aer_jax.data.dataset import open_dataset

    dataset = open_dataset(data)
    task = AnnotationTask(dataset, load_prompt(dataset.classes))
    if answers == "exact":
        start_jax()
        engine = open_engine("exact", model, task, dtype=dtype)
    else:
        engine = open_engine("transformers", model, task, constrained=answers == "constrained")
    chosen = crossed(int(listeners), task.prompt.personas)
    refuse_without_votes(annotate(task, engine, chosen, Path(journal)))


def main(arguments: list[str]) -> int:
    """Exit code 0, or that of the error whose sentence is the last line."""
    step, *rest = arguments
    try:
        (trial if step == "trial" else annotate)(*rest)
    except UserError as error:
        print(f"aer-jax: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
