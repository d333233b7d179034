"""aer_jax's exact synthetic votes, for `bench_annotate`; each message asks for all clips once."""

from __future__ import annotations

from typing import Any

import jax

from aer_jax.annotation.engines.exact import ExactEngine
from aer_jax.annotation.engines.tokens import AnnotationEncoder
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.bench.measure import Clock, memory_bytes, reset_peak
from aer_jax.bench.workers.jax_run import device
from aer_jax.config import MeshConfig, load_config
from aer_jax.data.dataset import open_dataset
from aer_jax.models.sharding import make_mesh
from aer_jax.worker_process import serve


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    config, ids = load_config(job["config"]), job["ids"]
    dataset = open_dataset(config.data.dataset)
    task = AnnotationTask(dataset, load_prompt(dataset.classes))
    engine = ExactEngine(config.model.checkpoint, task, batch=config.train.microbatch, dtype=config.model.dtype)
    engine.mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def annotate() -> dict[str, Any]:
        # An utterance is annotated once: nothing may be left of the prompts of a pass before.
        engine.encoder = AnnotationEncoder(config.model.checkpoint, task)
        clock = Clock()
        likelihoods: dict[str, list[list[float]]] = {}
        for some, log_probs_nplt in engine.log_probs(ids, task.prompt.personas):
            likelihoods |= zip(some, log_probs_nplt.sum(-1).tolist(), strict=True)
        return clock.lap() | {"log_likelihoods": [likelihoods[id] for id in ids], "peak_bytes": memory_bytes()}

    first = annotate()["seconds"]
    reset_peak()
    labels = {"labels": engine.encoder.labels_ln.tolist(), "label_mask": engine.encoder.label_mask_ln.tolist()}
    return device() | labels | {"first_seconds": first}, lambda _: annotate()


if __name__ == "__main__":
    serve(start)
