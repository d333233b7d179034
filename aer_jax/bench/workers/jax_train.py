"""Our training step in a process of its own that `bench_train` starts and asks, whole or with one of its means undone.

Each further line names a variant, the number of a step and that of the one that follows at once, if any; the answer
has the step's loss (mean over the batch, nats) and seconds, of reading the clips too.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from aer_jax.base.config import read_config
from aer_jax.base.lengths import HOP, frame_count
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.bench.ablations import VARIANTS, prefix_of
from aer_jax.bench.measure import Clock, memory_bytes, reset_peak
from aer_jax.config import load_config
from aer_jax.data.batching.batches import Batch, train_batches
from aer_jax.data.dataset import open_dataset
from aer_jax.data.examples import real_examples
from aer_jax.data.prompt import PromptEncoder
from aer_jax.errors import UserError
from aer_jax.models import emotion_head
from aer_jax.models.adapters.dropout import split_key
from aer_jax.models.adapters.peft_format import abstract_model, adapter_config, adapter_tensors
from aer_jax.models.emotion_head import PaperHead
from aer_jax.models.emotion_model import EmotionModel, load_model
from aer_jax.models.flops import model_flops
from aer_jax.models.layers import Linear
from aer_jax.models.sharding import make_mesh, replicated
from aer_jax.models.weights import base_parameters, load_parameter
from aer_jax.training.optimizer import make_optimizer, schedule
from aer_jax.training.step import Parts, TrainState, init_state, make_train_step, take_apart, to_device
from aer_jax.training.targets import label_distributions
from aer_jax.worker_process import serve


class WithOutputLayer(EmotionModel):
    """The same model that also computes the vocabulary's logits at every position, which nobody reads."""

    def __init__(self, model: EmotionModel, lm_head: Linear):
        self.base, self.emotion_head = model.base, model.emotion_head
        self.lm_head = lm_head

    def __call__(self, batch, key=None) -> jax.Array:
        base_key, head_key = split_key(key, 2)
        features = self.features(batch, base_key)
        logits_btv = jax.lax.stop_gradient(features.hidden_bth @ self.lm_head.kernel[...])
        # Far below a float32's rounding, and yet the compiler cannot leave the logits out.
        return self.emotion_head(features, head_key) + 1e-30 * logits_btv.astype(jnp.float32).max()


def every_query(
    head: PaperHead, queries: Sequence[jax.Array], text: Sequence[jax.Array], mask_bt: jax.Array
) -> jax.Array:
    """The head's attention of all positions, in place of `PaperHead.attend`, of which it reads the first."""
    y_bth = ATTEND(head, text, text, mask_bt)
    return y_bth + 1e-30 * y_bth.max()  # as above: nothing can be left out


CACHED = "/compilation_cache/cache_hits"


class Training:
    """The job's steps by several variants, each with adapters, head and optimizer of its own from the same start.

    Attributes:
        steps: for each step [{id, text, target}] of its clips.
        compile_seconds: variant -> seconds by batch shape; few where the cache of compiled programs has it.
    """

    def __init__(self, job: dict[str, Any]):
        self.config = config = load_config(job["config"])
        self.variants: list[str] = job["variants"]
        self.mesh = make_mesh(config.mesh, jax.devices()[:1])
        jax.set_mesh(self.mesh)
        self.dataset = open_dataset(config.data.dataset)
        self.prompt = PromptEncoder(
            config.model.checkpoint,
            self.dataset.classes,
            transcript=config.data.transcript,
            speaker=config.data.speaker,
        )
        ids = self.dataset.splits["train"]
        self.stream = train_batches(
            real_examples(ids, label_distributions(self.dataset, ids, config.labels)),
            self.dataset,
            self.prompt,
            shapes=config.data.shapes,
            batch=config.train.batch,
            seed=config.seed,
            augment=0.0,
            sampling=config.data.sampling,
            max_seconds=config.data.max_seconds,
        )
        full = [i for i in range(self.stream.steps_per_epoch) if len(self.stream.contents(i)) == config.train.batch]
        self.chosen = full[: job["steps"]]
        if len(self.chosen) < job["steps"]:
            raise UserError(
                f"{self.dataset.path} has {len(self.chosen)} full batches of {config.train.batch} training clips, and "
                f"the bench needs {job['steps']}; set a smaller train.batch."
            )
        model = load_model(config.model, len(self.dataset.classes), self.mesh, config.seed)
        save_file(adapter_tensors(model), job["trainables"])
        self.lora = adapter_config(model, config.model)
        self.parts = take_apart(model)
        # Every variant gives its own copy away with each step.
        self.start = jax.tree.map(np.asarray, self.parts.trainable)
        self.compile_seconds: dict[str, dict[str, float]] = {}
        self.compiled: dict[str, dict[tuple, Any]] = {}
        self.states: dict[str, TrainState] = {}
        self.frozen: dict[str, nnx.State] = {}
        self.running: tuple[int, Batch, float, jax.Array] | None = None  # step, clips, seconds of reading, its loss
        self.clock = Clock()
        for variant in self.variants:
            self._prepare(variant)

    def clips(self) -> list[list[dict[str, Any]]]:
        """What every step hears: [{id, text, target}] each."""
        described = []
        for batch, contents in ((self.stream.read(i), self.stream.contents(i)) for i in self.chosen):
            rows = []
            for clip, target_k in zip(contents, batch["target"], strict=True):
                utterance = self.dataset.utterances[clip["utterance"]]
                text = self.prompt.text(utterance.transcript, utterance.speaker)
                rows.append({"id": utterance.id, "text": text, "target": target_k.tolist()})
            described.append(rows)
        return described

    def needs(self) -> list[dict[str, int]]:
        """Of every step without padding: mel frames, tokens, and operations by 4N."""
        config, rows = read_config(self.config.model.checkpoint), []
        for batch in map(self.stream.read, self.chosen):
            frames_b, tokens_b = (
                frame_count(batch["audio_samples"]),
                batch["token_mask"].sum(axis=1) + prefix_of(batch).size,
            )
            flops = sum(model_flops(config, int(f), int(t)) for f, t in zip(frames_b, tokens_b, strict=True))
            rows.append({"frames": int(frames_b.sum()), "tokens": int(tokens_b.sum()), "flops": flops})
        return rows

    def rates(self) -> list[list[float]]:
        """Learning rates of adapters and head at every step."""
        train, steps = self.config.train, len(self.chosen)
        schedules = [schedule(peak, train.warmup, steps) for peak in (train.lr, train.head_lr)]
        return [[float(rate(step)) for rate in schedules] for step in range(steps)]

    def step(self, variant: str, number: int, then: int | None) -> dict[str, Any]:
        """One update; as in a run, the device is given the step that follows before this one's loss is waited for.

        What it takes counts from the end of the step before, where that was one of the same turn.
        """
        if self.running is None:
            self.clock = Clock()
            self.running = self._start(variant, number)
        started, batch, waited, loss = self.running
        assert started == number, "a turn's steps follow one another as they were announced"
        self.running = None if then is None else self._start(variant, then, after=loss)
        value = float(loss)  # waits for the device
        taken, self.clock = self.clock.lap(), Clock()
        rows = self.config.train.microbatch
        return {"loss": value, **taken, "input_seconds": waited, "microbatch": rows, **self._computed(batch)}

    def _start(self, variant: str, number: int, after: jax.Array | None = None) -> tuple[int, Batch, float, jax.Array]:
        """Read a step's clips and hand it to the device, which waited for them if it had done with `after`."""
        begin = time.perf_counter()
        batch = self._batch(variant, number)
        waited = time.perf_counter() - begin if after is None or after.is_ready() else 0.0  # type: ignore[attr-defined]
        laid = to_device(batch, self.mesh, self.config.train.microbatch)
        compiled = self.compiled[variant][batch["audio"].shape, batch["tokens"].shape]
        self.states[variant], metrics = compiled(self.states[variant], self.frozen[variant], laid)
        return number, batch, waited, metrics["loss"]

    def _computed(self, batch: Batch) -> dict[str, int]:
        """Mel frames and positions of a step, how many are padding, and the 4N that reading a prefix once spares."""
        clips, prefix = len(batch["weight"]), prefix_of(batch).size
        read = clips // self.config.train.microbatch * prefix
        frames = batch["audio"].size // HOP
        return {
            "frames": frames,
            "padded_frames": frames - int(frame_count(batch["audio_samples"]).sum()),
            "positions": batch["tokens"].size + read,
            "padded_positions": batch["tokens"].size - int(batch["token_mask"].sum()),
            "spared_flops": model_flops(read_config(self.config.model.checkpoint), 0, clips * prefix - read),
        }

    def _batch(self, variant: str, number: int) -> Batch:
        batch, pad = self.stream.read(self.chosen[number]), VARIANTS[variant].pad
        return pad(batch, self.stream) if pad else batch

    def _prepare(self, name: str) -> None:
        """Trainables, frozen base and the compiled steps of one variant."""
        variant, train = VARIANTS[name], self.config.train
        # The published head's rates are constants.
        emotion_head.dropout = DROPOUT if variant.dropout else lambda x, rate, key: x
        PaperHead.attend = every_query if variant.every_query else ATTEND  # type: ignore[method-assign, assignment]
        settings = dataclasses.replace(self.config.model, **variant.settings)
        if variant.dropout:
            settings = dataclasses.replace(settings, lora=dataclasses.replace(settings.lora, dropout=0.2))
        model = abstract_model(settings, len(self.dataset.classes))
        frozen = self.parts.frozen
        if variant.output_layer:
            model, frozen = self._with_output_layer(model)
        graphdef = take_apart(model).graphdef
        optimizer = make_optimizer(train, len(self.chosen))
        step = make_train_step(
            graphdef,
            optimizer,
            rate=schedule(train.lr, train.warmup, len(self.chosen)),
            entropy_weight=train.entropy_weight,
            seed=self.config.seed,
        )
        if not variant.donated:
            step = jax.jit(inspect.unwrap(step))

        def from_the_start() -> TrainState:
            trainable = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), self.start, self.parts.trainable)
            return init_state(Parts(graphdef, trainable, frozen), optimizer, self.mesh)

        state = from_the_start()
        self.frozen[name], self.compiled[name], self.compile_seconds[name] = frozen, {}, {}
        for number in range(len(self.chosen)):
            batch = self._batch(name, number)
            shape = batch["audio"].shape, batch["tokens"].shape
            if shape not in self.compiled[name]:
                laid = to_device(batch, self.mesh, train.microbatch)
                begin = time.perf_counter()
                # Of bfloat16 products it changes nothing, but `kernel_for` leaves precise ones to XLA.
                with nullcontext() if variant.kernels else jax.default_matmul_precision("highest"):
                    compiled = self.compiled[name][shape] = step.lower(state, frozen, laid).compile()
                shown = f"{shape[0][1] / 16_000:.2f} s, {shape[1][1]} tokens"
                self.compile_seconds[name][shown] = time.perf_counter() - begin
                # A program's first run is longer: a GPU loads its kernels.
                state, _ = jax.block_until_ready(compiled(state, frozen, laid))
        del state
        self.states[name] = from_the_start()

    def _with_output_layer(self, model: EmotionModel) -> tuple[WithOutputLayer, nnx.State]:
        text = read_config(self.config.model.checkpoint).text_config
        base = nnx.eval_shape(lambda: _Output(text))
        parameter = next(iter(base_parameters(base)))
        dtype = jnp.dtype(self.config.model.dtype)
        kernel = load_parameter(
            parameter, Checkpoint(self.config.model.checkpoint), lambda path, shape: replicated(self.mesh), dtype
        )
        whole = WithOutputLayer(model, base.lm_head)
        loaded: nnx.State = nnx.State({"lm_head": {"kernel": parameter.variable.replace(kernel)}})
        return whole, nnx.merge_state(self.parts.frozen, loaded)


class _Output(nnx.Module):
    """The output layer alone, where a checkpoint's names find it."""

    def __init__(self, text):
        self.lm_head = Linear(text.hidden_size, text.vocab_size, bias=False, rngs=nnx.Rngs(0))


DROPOUT, ATTEND = emotion_head.dropout, PaperHead.attend


def matmul_flops(dtype: str) -> float:
    """Operations a second of the fastest of some large matrix products."""
    size, best = (2048 if jax.default_backend() == "cpu" else 8192), float("inf")
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    for _ in range(6):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    hits: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith(CACHED) else None)
    training = Training(job)
    about = {
        "device": jax.devices()[0].device_kind,
        "matmul_flops": matmul_flops(training.config.model.dtype),
        "versions": {"jax": jax.__version__},
        "clips": training.clips(),
        "needs": training.needs(),
        "rates": training.rates(),
        "lora": training.lora,
        "classes": len(training.dataset.classes),
        "compile_seconds": training.compile_seconds,
        "from_cache": len(hits) > 0,
    }
    reset_peak()

    def answer(message: Any) -> dict[str, Any]:
        if message == "memory":
            stats = jax.devices()[0].memory_stats()
            return {"peak_bytes": stats["peak_bytes_in_use"] if stats else memory_bytes()}
        return training.step(message["variant"], message["step"], message["then"])

    return about, answer


if __name__ == "__main__":
    serve(start)
