"""The engine that does not sample: each label's likelihood under each persona, in JAX, tempered for each listener.

What it writes for a listener is what infinitely many answers of it, bound to the labels, would come to. The audio tower
hears an utterance once, whatever the number of personas; temperatures cost nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from aer_jax.annotation.engines.interface import Answer, Question
from aer_jax.annotation.engines.model_name import model_name
from aer_jax.annotation.engines.tokens import AnnotationEncoder
from aer_jax.annotation.task import AnnotationTask
from aer_jax.base.config import read_config
from aer_jax.base.hub import find_checkpoint
from aer_jax.base.label_trie import tempered
from aer_jax.base.lengths import MAX_SAMPLES, SAMPLE_RATE
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.config import MeshConfig
from aer_jax.data.batching.buckets import Batch, collate
from aer_jax.data.batching.shapes import bucketize, choose_shapes, cut_into_batches, needs_of
from aer_jax.labels.attempts import Answers
from aer_jax.models.label_scores import label_log_probs
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.sharding import make_mesh, row_blocks, sharding
from aer_jax.models.weights import load_base
from aer_jax.training.distributed import fetch
from aer_jax.training.step import to_device

SHAPES = 8
_ROUNDING = 16  # samples by which a stored duration, or resampling, may be short


class ExactEngine:
    """Label likelihoods of a Qwen2-Audio checkpoint, on all devices of this process.

    Args:
        model: checkpoint directory or hub id.
        task: prompt and dataset.
        batch: utterances at a time; a multiple of the mesh's data x fsdp.
        mesh: how the devices are divided, as in training.
        dtype: of weights and activations, float32 or bfloat16.

    Raises:
        UserError: there is no such checkpoint, it cannot express the labels, or the mesh does not fit the devices.
    """

    answers: Answers = "exact"

    def __init__(
        self,
        model: str | Path,
        task: AnnotationTask,
        *,
        batch: int = 16,
        mesh: MeshConfig | None = None,
        dtype: str = "float32",
    ):
        self.model, self.task = model_name(model), task
        self._checkpoint, self._dtype = find_checkpoint(model), dtype
        self.encoder = AnnotationEncoder(self._checkpoint, task)
        self.mesh = make_mesh(mesh or MeshConfig())
        # Padding rows make up for what a batch lacks, so it may be rounded up.
        rows = row_blocks(self.mesh)
        self.batch = -(-batch // rows) * rows

    def ask(self, questions: Sequence[Question]) -> Generator[list[tuple[Question, Answer]]]:
        """See `Engine`: all listeners of the utterances of one batch at a time."""
        personas = list(dict.fromkeys(pair.listener.persona for pair in questions))
        by_utterance: dict[str, list[Question]] = {}
        for pair in questions:
            by_utterance.setdefault(pair.utterance, []).append(pair)
        for ids, log_probs_nplt in self.log_probs(list(by_utterance), personas):
            answers: list[tuple[Question, Answer]] = []
            for id, log_probs_plt in zip(ids, log_probs_nplt, strict=True):
                for pair in by_utterance[id]:
                    at = personas.index(pair.listener.persona)
                    answers.append((pair, self._answer(log_probs_plt[at], pair.listener.temperature)))
            yield answers

    def log_probs(self, ids: Sequence[str], personas: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Log-probabilities of the labels' tokens by batch, the longest clips first.

        Yields:
            utterances, and float32 [utterances, personas, labels, longest label], see `label_log_probs`.
        """
        jax.set_mesh(self.mesh)
        waiting: tuple[jax.Array, jax.Array] | None = None

        def collect(row_b: jax.Array, log_probs_bplt: jax.Array) -> tuple[list[str], np.ndarray]:
            rows, log_probs = fetch((row_b, log_probs_bplt))
            return [ids[row] for row in rows if row >= 0], log_probs[rows >= 0]

        for batch in self._batches(ids, personas):
            laid = to_device(batch, self.mesh)
            scored = _label_log_probs(
                self._model,
                laid["audio"],
                laid["audio_samples"],
                laid["tokens"],
                laid["token_mask"],
                self.encoder.labels_ln,
                self.encoder.label_mask_ln,
            )
            if waiting is not None:  # the device is at work while the batch before is written down
                yield collect(*waiting)
            waiting = laid["row"], scored
        if waiting is not None:
            yield collect(*waiting)

    @functools.cached_property
    def _model(self) -> Qwen2Audio:
        return load_annotator(self._checkpoint, self.mesh, self._dtype)

    def _answer(self, log_probs_lt: np.ndarray, temperature: float) -> Answer:
        probs_l = tempered(log_probs_lt[None], self.encoder.labels, temperature)[0]
        # Seven digits are what float32 knows.
        labels = self.task.prompt.labels
        return Answer(probs={label: float(f"{p:.7g}") for label, p in zip(labels, probs_l, strict=True)})

    def _batches(self, ids: Sequence[str], personas: Sequence[str]) -> Iterator[Batch]:
        """The clips, each with its prompts: tokens [B, P, T] and their mask; read ahead of their use."""
        dataset, encode = self.task.dataset, self.encoder.encode
        seconds_n = np.array([dataset.utterances[id].seconds for id in ids])
        samples_n = np.minimum(np.ceil(seconds_n * SAMPLE_RATE).astype(np.int64) + _ROUNDING, MAX_SAMPLES)
        progress = tqdm(zip(ids, samples_n, strict=True), "prompts", total=len(ids), unit="clip", delay=2, leave=False)
        tokens_n = [max(len(encode(id, persona, n)) for persona in personas) for id, n in progress]
        for id, tokens in zip(ids, tokens_n, strict=True):
            self.encoder.refuse_long(id, tokens + max(map(len, self.encoder.labels)))
        needs_n2 = needs_of(samples_n, tokens_n)
        shapes_k2 = choose_shapes(needs_n2, needs_n2.max(axis=0), SHAPES, self.batch)
        plans = cut_into_batches(bucketize(needs_n2, shapes_k2), self.batch)

        def read(plan: tuple[int, np.ndarray]) -> Batch:
            shape, rows = plan
            audio = [dataset.audio(ids[row])[:MAX_SAMPLES] for row in rows]
            by_persona = [
                collate(
                    audio,
                    [encode(ids[row], persona, len(clip)) for row, clip in zip(rows, audio, strict=True)],
                    np.zeros((len(rows), 0)),
                    rows,
                    batch=self.batch,
                    window=int(shapes_k2[shape, 0]),
                    text_length=int(shapes_k2[shape, 1]),
                    pad_id=self.encoder.pad_id,
                )
                for persona in personas
            ]
            stacked = {name: np.stack([b[name] for b in by_persona], axis=1) for name in ("tokens", "token_mask")}
            return by_persona[0] | stacked

        threads = min(4, os.cpu_count() or 1)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        return iter(grain.MapDataset.source(plans).map(read).to_iter_dataset(options))


def load_annotator(checkpoint: str | Path, mesh: Mesh, dtype: str) -> Qwen2Audio:
    """A checkpoint with its output layer, on a mesh.

    Raises:
        UserError: the directory holds no such checkpoint.
    """
    config = read_config(checkpoint)
    model = nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0)))
    load_base(model, Checkpoint(checkpoint), lambda path, shape: sharding(mesh, path, shape), jnp.dtype(dtype))
    return model


_label_log_probs = nnx.jit(label_log_probs)
