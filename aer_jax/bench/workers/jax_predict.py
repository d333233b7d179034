"""Our prediction in a process of its own that `bench_predict` starts; each further line asks for all clips once."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from aer_jax.bench.measure import Clock, memory_bytes, reset_peak
from aer_jax.config import load_config
from aer_jax.data.batching.batches import evaluation_batches
from aer_jax.data.dataset import open_dataset
from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.adapters.peft_format import adapter_config, adapter_tensors
from aer_jax.models.emotion_model import load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training.predictor import predict_rows
from aer_jax.training.step import make_predict_step, take_apart
from aer_jax.worker_process import serve


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    config, ids = load_config(job["config"]), job["ids"]
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    jax.set_mesh(mesh)
    dataset = open_dataset(config.data.dataset)
    classes = len(dataset.classes)
    prompt = PromptEncoder(
        config.model.checkpoint, dataset.classes, transcript=config.data.transcript, speaker=config.data.speaker
    )
    model = load_model(config.model, classes, mesh, config.seed)
    save_file(adapter_tensors(model), job["trainables"])
    lora = adapter_config(model, config.model)
    parts = take_apart(model)
    step = make_predict_step(parts.graphdef)
    batches = evaluation_batches(
        ids,
        dataset,
        prompt,
        np.full((len(ids), classes), 1 / classes),
        shapes=config.data.shapes,
        batch=config.train.microbatch,
        max_seconds=config.data.max_seconds,
    )

    def predict() -> dict[str, Any]:
        clock = Clock()
        logits_nk = predict_rows(
            batches, len(ids), classes, lambda batch: step(parts.trainable, parts.frozen, batch), mesh
        )
        probs_nk = np.asarray(jax.nn.softmax(logits_nk))
        return {
            **clock.lap(),
            "probs": probs_nk.tolist(),
            "peak_bytes": memory_bytes(),
        }

    first = predict()["seconds"]
    reset_peak()
    utterances = [dataset.utterances[id] for id in ids]
    about = {
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__},
        "texts": [prompt.text(utterance.transcript, utterance.speaker) for utterance in utterances],
        "lora": lora,
        "classes": classes,
        "first_seconds": first,
    }
    return about, lambda _: predict()


if __name__ == "__main__":
    serve(start)
