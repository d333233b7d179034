"""A transformers loop that predicts, in a process of its own that `bench_predict` starts.

Each further line asks for all clips once, `how` = `paper`, `careful` or `cut`, as in
`pytorch_train`; here all make their log-mel in the loop, for each clip comes once.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2AudioProcessor

from aer_jax.bench.measure import Clock, memory_bytes, reset_peak
from aer_jax.bench.workers.pytorch_train import load, make_inputs, run
from aer_jax.data.dataset import open_dataset
from aer_jax.worker_process import serve


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = Qwen2AudioProcessor.from_pretrained(job["checkpoint"], local_files_only=True)
    dataset, most = open_dataset(job["dataset"]), round(job["max_seconds"] * 16_000)
    model = load(job).to(device).eval()

    @torch.inference_mode()
    def predict(ids: list[str], texts: list[str], how: str) -> list[list[float]]:
        probs = []
        for first in range(0, len(ids), job["batch"]):
            some = slice(first, first + job["batch"])
            audio = [dataset.audio(id)[:most] for id in ids[some]]
            inputs = make_inputs(processor, texts[some], audio, how)
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            probs += run(model, inputs, how).softmax(-1).tolist()
        return probs

    for how in ("paper", "careful", "cut"):
        model.cut_window(3000)
        predict(job["ids"][: job["batch"]], job["texts"][: job["batch"]], how)
    reset_peak()

    def answer(how: str) -> dict[str, Any]:
        model.cut_window(3000)
        clock = Clock()
        probs = predict(job["ids"], job["texts"], how)
        return {
            **clock.lap(),
            "probs": probs,
            "peak_bytes": memory_bytes(),
        }

    return {"versions": {"torch": torch.__version__}}, answer


if __name__ == "__main__":
    serve(start)
