"""The paper's training step in PyTorch, or a careful one, for `bench_train`; the job says which `way`.

- `paper`: the processor makes log-mel of 30 s and tokens as each step comes, the whole model runs with its output
  layer and keeps every layer's states, microbatches are padded to their longest prompt, gradients accumulate;
- `careful`: log-mel and tokens are made before a step's time begins, no output layer, no cache of keys;
- `cut`: as `careful`, and windows end with the microbatch's longest clip. transformers refuses anything but 30 s, so
  this needs a hand inside it: the audio tower's table of positions is cut.

All attend by PyTorch's fused attention (sdpa), which is transformers' default. Where a GPU has no room for a
microbatch, it is halved until there is.

Each message has the numbers of a turn's steps; the answer has loss (mean over the batch, nats) and seconds of each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn
from transformers import Qwen2AudioProcessor

from aer_jax.base.lengths import HOP, MAX_SAMPLES, SAMPLE_RATE
from aer_jax.bench.measure import Clock, matmul_flops, memory_bytes, reset_peak
from aer_jax.bench.workers.pytorch_model import PaperModel, paper_inputs, paper_loss, parameter_groups
from aer_jax.config import Config, load_config
from aer_jax.data.batching.shapes import window_for
from aer_jax.data.dataset import open_dataset
from aer_jax.worker_process import serve

Tensors = dict[str, torch.Tensor]


class PytorchSteps:
    """The job's steps on its clips, `rows` at a time."""

    def __init__(self, job: Mapping[str, Any]):
        config = load_config(job["config"])
        self.job, self.way, self.settings, self.rows = job, job["way"], config.train, config.train.microbatch
        self.device, self.processor, self.model = open_model(job, config)
        dataset, most = open_dataset(config.data.dataset), round(config.data.max_seconds * SAMPLE_RATE)
        self.audio = {clip["id"]: dataset.audio(clip["id"])[:most] for step in job["clips"] for clip in step}
        self.model.train()
        self.parameters = list(self.model.trained().values())
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, self.settings.weight_decay))

    def microbatches(self, step: int) -> Iterator[tuple[Tensors, torch.Tensor]]:
        """Inputs and targets of some rows at a time."""
        clips = self.job["clips"][step]
        for first in range(0, len(clips), self.rows):
            some = clips[first : first + self.rows]
            audio = [self.audio[clip["id"]] for clip in some]
            inputs = make_inputs(self.processor, [clip["text"] for clip in some], audio, self.way)
            yield inputs, torch.tensor([clip["target"] for clip in some])

    def step(self, number: int) -> dict[str, Any]:
        """One update."""
        while self.rows > 1:
            with suppress(torch.OutOfMemoryError):  # before anything was updated
                return self._step(number)
            self.rows //= 2
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return self._step(number)

    def _step(self, number: int) -> dict[str, Any]:
        batches = self.microbatches(number)
        if self.way != "paper":
            batches = iter(list(batches))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        clock, waited, total = Clock(), 0.0, 0.0
        computed: Counter[str] = Counter()
        rates = dict(zip(("adapters", "head"), self.job["rates"][number], strict=True))
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["part"]]
        self.optimizer.zero_grad()
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - begin
            if batch is None:
                break
            inputs, target_bk = ({n: x.to(self.device) for n, x in batch[0].items()}, batch[1].to(self.device))
            logits_bk = run(self.model, inputs, self.way)
            share = len(target_bk) / len(self.job["clips"][number])
            loss = paper_loss(logits_bk, target_bk, self.settings.entropy_weight) * share
            loss.backward()
            total = total + loss.detach()
            for name, mask in (("positions", "attention_mask"), ("frames", "feature_attention_mask")):
                computed[name] += inputs[mask].numel()
                computed[f"padded_{name}"] += int((inputs[mask] == 0).sum())
        nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        loss = float(total)  # waits for the device
        return {"loss": loss, **clock.lap(), "input_seconds": waited, "microbatch": self.rows, **computed}


def open_model(job: Mapping[str, Any], config: Config) -> tuple[torch.device, Qwen2AudioProcessor, PaperModel]:
    """Device, processor and model of a job, adapters and head from the file that aer_jax left."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processor = Qwen2AudioProcessor.from_pretrained(config.model.checkpoint, local_files_only=True)
    lora = job["lora"]
    model = PaperModel(
        Path(config.model.checkpoint),
        job["classes"],
        lora["r"],
        lora["lora_alpha"],
        torch_tensors(load_file(job["trainables"])),
        lora["target_modules"],
        getattr(torch, config.model.dtype),
    )
    return device, processor, model.to(device)


def torch_tensors(exported: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adapters and head in PEFT's layout, by the names of `PaperModel.named_tensors`."""
    named: dict[str, np.ndarray] = {}
    for name, tensor in exported.items():
        if not name.startswith("base_model.model.emotion_head."):
            named[f"adapted.{name.removesuffix('.weight')}.default.weight"] = tensor
            continue
        name = name.removeprefix("base_model.model.")
        if ".attention.in_proj_" in name:
            kind = name.rpartition("in_proj_")[2]
            parts = zip("qkv", np.split(tensor, 3), strict=True)
            named |= {f"emotion_head.{part}_proj.{kind}": piece for part, piece in parts}
        else:
            named[name.replace(".attention.out_proj.", ".out_proj.")] = tensor
    return named


def make_inputs(processor: Qwen2AudioProcessor, texts: list[str], audio: list[np.ndarray], way: str) -> Tensors:
    """Prompts padded on the left and log-mel of 30 s, or as long as the longest clip needs."""
    if way != "cut":
        return dict(paper_inputs(processor, texts, audio))
    features = processor.feature_extractor
    window = int(window_for([len(clip) for clip in audio]).max())
    features.n_samples, features.nb_max_frames = window, window // HOP
    try:
        return dict(paper_inputs(processor, texts, audio))
    finally:
        features.n_samples, features.nb_max_frames = MAX_SAMPLES, MAX_SAMPLES // HOP


def run(model: PaperModel, inputs: Tensors, way: str) -> torch.Tensor:
    """Logits [batch, classes]."""
    if way == "paper":
        return model.as_published(inputs)
    model.cut_window(inputs["input_features"].shape[-1])
    return model(inputs)


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    steps = PytorchSteps(job)
    cuda = steps.device.type == "cuda"
    size, dtype = (8192 if cuda else 2048), steps.model.base.dtype
    a, b = (torch.randn(size, size, device=steps.device).to(dtype) for _ in range(2))
    about = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "matmul_flops": matmul_flops(size, lambda: (a @ b)[0, 0].item()),
        "versions": {"torch": torch.__version__},
    }
    reset_peak()

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        done = [steps.step(number) for number in message["steps"]]
        return {"steps": done, "peak_bytes": torch.cuda.max_memory_allocated() if cuda else memory_bytes()}

    return about, answer


if __name__ == "__main__":
    serve(start)
