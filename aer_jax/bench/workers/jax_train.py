"""aer_jax's training step, whole or with one optimization disabled, for `bench_train`.

Each message names a way and the numbers of a turn's steps; the answer has loss (mean over the batch, nats) and seconds
of each, of reading the clips too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aer_jax.base.config import read_config
from aer_jax.base.lengths import HOP, frame_count
from aer_jax.bench.ablations import ABLATIONS, Ablation
from aer_jax.bench.measure import Clock, matmul_flops, memory_bytes, reset_peak
from aer_jax.bench.workers.jax_run import JaxRun, describe, open_run
from aer_jax.data.batching.batches import Batch, TrainBatches, train_batches
from aer_jax.data.examples import real_examples
from aer_jax.errors import UserError
from aer_jax.models.adapters.peft_format import abstract_model
from aer_jax.models.flops import model_flops
from aer_jax.training.optimizer import make_optimizer, schedule
from aer_jax.training.step import SplitModel, TrainState, init_state, make_train_step, split_model, to_device
from aer_jax.training.targets import Targets
from aer_jax.worker_process import serve

CACHED = "/compilation_cache/cache_hits"


class Dispatched(NamedTuple):
    """A dispatched step, and how long the device waited for its input."""

    batch: Batch
    input_seconds: float
    loss: jax.Array


class JaxSteps:
    """The job's steps by several ways, each with adapters, head and optimizer of its own from the same start.

    Attributes:
        compile_seconds: way -> seconds by batch shape; few where the cache of compiled programs has it.
    """

    def __init__(self, job: dict[str, Any]):
        self.run = open_run(job)
        self.config, self.base_config = self.run.config, read_config(self.run.config.model.checkpoint)
        self.stream = open_stream(self.run)
        self.chosen = self._full_batches(job["steps"])
        self.parts = split_model(self.run.model)
        self.start = jax.tree.map(np.asarray, self.parts.trainable)  # a step gives away what it was given
        self.compile_seconds: dict[str, dict[str, float]] = {}
        self.programs: dict[str, dict[tuple, Any]] = {}
        self.states: dict[str, TrainState] = {}
        for way in job["ways"]:
            self._compile(way, ABLATIONS[way])

    def turn(self, way: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Updates one after another; as in a run, the device has the next step before this one's loss is waited for."""
        clock, answers = Clock(), []
        running = self._dispatch(way, numbers[0])
        for following in [*numbers[1:], None]:
            done = running
            if following is not None:
                running = self._dispatch(way, following, done.loss)
            loss = float(done.loss)  # waits for the device
            answers.append({"loss": loss, **clock.lap(), **self._computed(done)})
        return answers

    def describe(self) -> dict[str, Any]:
        """Description of the chosen steps.

        Returns:
            clips: of every step, [{id, text, target}].
            needs: of every step without padding, {frames, tokens, flops by 4N}.
            rates: learning rates of adapters and head at every step.
        """
        batches = [(self.stream.read(i), self.stream.contents(i)) for i in self.chosen]
        train, steps = self.config.train, len(self.chosen)
        schedules = [schedule(peak, train.warmup, steps) for peak in (train.lr, train.head_lr)]
        return {
            "clips": [self._clips(*batch) for batch in batches],
            "needs": [self._needs(batch) for batch, _ in batches],
            "rates": [[float(rate(step)) for rate in schedules] for step in range(steps)],
        }

    def _clips(self, batch: Batch, contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = []
        for clip, target_k in zip(contents, batch["target"], strict=True):
            utterance = self.run.dataset.utterances[clip["utterance"]]
            text = self.run.prompt.text(utterance.transcript, utterance.speaker)
            rows.append({"id": utterance.id, "text": text, "target": target_k.tolist()})
        return rows

    def _needs(self, batch: Batch) -> dict[str, int]:
        frames_b = frame_count(batch["audio_samples"])
        tokens_b = batch["token_mask"].sum(axis=1) + batch["prefix"].size
        pairs = zip(frames_b.tolist(), tokens_b.tolist(), strict=True)
        flops = sum(model_flops(self.base_config, frames, tokens) for frames, tokens in pairs)
        return {"frames": int(frames_b.sum()), "tokens": int(tokens_b.sum()), "flops": flops}

    def _full_batches(self, count: int) -> list[int]:
        batch = self.config.train.batch
        full = [i for i in range(self.stream.steps_per_epoch) if len(self.stream.contents(i)) == batch]
        if len(full) < count:
            raise UserError(
                f"{self.run.dataset.path} has {len(full)} full batches of {batch} training clips, and the bench needs "
                f"{count}; set a smaller train.batch."
            )
        return full[:count]

    def _read(self, way: str, number: int) -> Batch:
        batch, pad = self.stream.read(self.chosen[number]), ABLATIONS[way].pad
        return pad(batch, self.stream) if pad else batch

    def _dispatch(self, way: str, number: int, after: jax.Array | None = None) -> Dispatched:
        """Read a step's clips and hand it to the device, which waited for them if it had done with `after`."""
        begin = time.perf_counter()
        batch = self._read(way, number)
        waited = time.perf_counter() - begin if after is None or after.is_ready() else 0.0  # type: ignore[attr-defined]
        on_device = to_device(batch, self.run.mesh, self.config.train.microbatch)
        program = self.programs[way][batch_shape(batch)]
        self.states[way], metrics = program(self.states[way], self.parts.frozen, on_device)
        return Dispatched(batch, waited, metrics["loss"])

    def _computed(self, done: Dispatched) -> dict[str, Any]:
        """Mel frames and positions of a step, how many are padding, and the 4N that reading a prefix once spares."""
        batch, rows = done.batch, self.config.train.microbatch
        clips, prefix = len(batch["weight"]), batch["prefix"].size
        read = clips // rows * prefix
        frames = batch["audio"].size // HOP
        return {
            "input_seconds": done.input_seconds,
            "microbatch": rows,
            "frames": frames,
            "padded_frames": frames - int(frame_count(batch["audio_samples"]).sum()),
            "positions": batch["tokens"].size + read,
            "padded_positions": batch["tokens"].size - int(batch["token_mask"].sum()),
            "spared_flops": model_flops(self.base_config, 0, clips * prefix - read),
        }

    def _compile(self, way: str, ablation: Ablation) -> None:
        train, steps = self.config.train, len(self.chosen)
        lora = dataclasses.replace(self.config.model.lora, dropout=ablation.dropout)
        settings = dataclasses.replace(self.config.model, lora=lora, **ablation.settings)
        graphdef = split_model(abstract_model(settings, self.run.dataset.classes)).graphdef
        optimizer = make_optimizer(train, steps)
        step = make_train_step(
            graphdef,
            optimizer,
            rate=schedule(train.lr, train.warmup, steps),
            entropy_weight=train.entropy_weight,
            seed=self.config.seed,
            dropout=ablation.dropout > 0,
        )

        def initial_state() -> TrainState:
            trainable = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), self.start, self.parts.trainable)
            return init_state(SplitModel(graphdef, trainable, self.parts.frozen), optimizer, self.run.mesh)

        state, frozen = initial_state(), self.parts.frozen
        programs: dict[tuple, Any] = {}
        seconds = self.compile_seconds[way] = {}
        for number in range(steps):
            batch = self._read(way, number)
            shape = batch_shape(batch)
            if shape in programs:
                continue
            on_device = to_device(batch, self.run.mesh, train.microbatch)
            clock = Clock()
            # Precise products are left to XLA by `kernel_for`; of bfloat16 ones the setting changes nothing else.
            with nullcontext() if ablation.kernels else jax.default_matmul_precision("highest"):
                programs[shape] = step.lower(state, frozen, on_device).compile()
            seconds[f"{shape[0] / 16_000:.2f} s, {shape[1]} tokens"] = clock.lap()["seconds"]
            # A program's first run is longer: a GPU loads its kernels.
            state, _ = jax.block_until_ready(programs[shape](state, frozen, on_device))
        del state
        self.programs[way], self.states[way] = programs, initial_state()
        self.turn(way, range(2))  # what Python does but once would hide a step that is short
        self.states[way] = initial_state()


def open_stream(run: JaxRun) -> TrainBatches:
    """The training batches of a run, unchanged clips alone."""
    config, ids = run.config, run.dataset.splits["train"]
    return train_batches(
        real_examples(ids, Targets(run.dataset, config.labels).distributions(ids)),
        run.dataset,
        run.prompt,
        shapes=config.data.shapes,
        batch=config.train.batch,
        seed=config.seed,
        augment=0.0,
        sampling=config.data.sampling,
        max_seconds=config.data.max_seconds,
    )


def batch_shape(batch: Batch) -> tuple[int, int]:
    """Samples of the window, and tokens after the prefix."""
    return batch["audio"].shape[1], batch["tokens"].shape[1]


def device_matmul_flops(dtype: str) -> float:
    """See `matmul_flops`."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)
    return matmul_flops(size, lambda: product(a).block_until_ready())


def peak_bytes() -> int:
    """Of the accelerator, or of this process on a CPU."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else memory_bytes()


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    hits: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith(CACHED) else None)
    steps = JaxSteps(job)
    about = describe(steps.run) | {
        "matmul_flops": device_matmul_flops(steps.config.model.dtype),
        **steps.describe(),
        "compile_seconds": steps.compile_seconds,
        "from_cache": len(hits) > 0,
    }
    reset_peak()

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        return {"steps": steps.turn(message["way"], message["steps"]), "peak_bytes": peak_bytes()}

    return about, answer


if __name__ == "__main__":
    serve(start)
