"""aer_jax's prediction, for `bench_predict`; each message asks for all clips once."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from aer_jax.bench.measure import Clock, memory_bytes, reset_peak
from aer_jax.bench.workers.jax_run import describe, open_run
from aer_jax.data.batching.batches import evaluation_batches
from aer_jax.training.batch_prediction import predict_rows
from aer_jax.training.step import make_predict_step, split_model
from aer_jax.worker_process import serve


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    run, ids = open_run(job), job["ids"]
    config, dataset, classes = run.config, run.dataset, len(run.dataset.classes)
    parts = split_model(run.model)
    step = make_predict_step(parts.graphdef)
    batches = evaluation_batches(
        ids,
        dataset,
        run.prompt,
        shapes=config.data.shapes,
        batch=config.train.microbatch,
        max_seconds=config.data.max_seconds,
    )

    def predict() -> dict[str, Any]:
        clock = Clock()
        logits_nk = predict_rows(
            batches, len(ids), classes, lambda batch: step(parts.trainable, parts.frozen, batch), run.mesh
        )
        probs_nk = np.asarray(jax.nn.softmax(logits_nk))
        return clock.lap() | {"probs": probs_nk.tolist(), "peak_bytes": memory_bytes()}

    first = predict()["seconds"]
    reset_peak()
    utterances = [dataset.utterances[id] for id in ids]
    texts = [run.prompt.text(utterance.transcript, utterance.speaker) for utterance in utterances]
    return describe(run) | {"texts": texts, "first_seconds": first}, lambda _: predict()


if __name__ == "__main__":
    serve(start)
