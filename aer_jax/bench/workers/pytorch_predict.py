"""A transformers loop that predicts, for `bench_predict`; each message is a way, as in `pytorch_train`, for all clips.

Here all ways make their log-mel in the loop, for each clip comes once.
"""

from __future__ import annotations

from typing import Any

import torch

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.bench.driver import PYTORCH
from aer_jax.bench.measure import Clock, memory_bytes, reset_peak
from aer_jax.bench.workers.pytorch_train import make_inputs, open_model, run
from aer_jax.config import load_config
from aer_jax.data.dataset import open_dataset
from aer_jax.worker_process import serve


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    config, ids, texts = load_config(job["config"]), job["ids"], job["texts"]
    device, processor, model = open_model(job, config)
    model.eval()
    dataset, most = open_dataset(config.data.dataset), round(config.data.max_seconds * SAMPLE_RATE)
    batch = config.train.microbatch

    @torch.inference_mode()
    def predict(way: str, limit: int | None = None) -> list[list[float]]:
        probs = []
        model.cut_window(3000)
        for first in range(0, len(ids[:limit]), batch):
            some = slice(first, first + batch)
            audio = [dataset.audio(id)[:most] for id in ids[some]]
            inputs = make_inputs(processor, texts[some], audio, way)
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            probs += run(model, inputs, way).softmax(-1).tolist()
        return probs

    for way in PYTORCH:
        predict(way, batch)
    reset_peak()

    def answer(way: str) -> dict[str, Any]:
        clock = Clock()
        return {"probs": predict(way), **clock.lap(), "peak_bytes": memory_bytes()}

    return {"versions": {"torch": torch.__version__}}, answer


if __name__ == "__main__":
    serve(start)
