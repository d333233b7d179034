"""How likely a checkpoint finds each label as its answer about each utterance: what its sampled votes estimate."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from aer_jax.data.collate import Batch
from aer_jax.models.emotion_model import read_config
from aer_jax.models.label_scores import label_log_probs
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.safetensors_files import Checkpoint
from aer_jax.models.sharding import sharding
from aer_jax.models.weights import load_base
from aer_jax.proxies.encode import AnnotationEncoder
from aer_jax.training.predictor import predict_rows


def load_annotator(checkpoint: str | Path, mesh: Mesh, dtype: Literal["float32", "bfloat16"]) -> Qwen2Audio:
    """A checkpoint with its output layer, on a mesh.

    Raises:
        UserError: the directory holds no such checkpoint.
    """
    config = read_config(checkpoint)
    model = nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0)))
    load_base(model, Checkpoint(checkpoint), lambda path, shape: sharding(mesh, path, shape), jnp.dtype(dtype))
    return model


def label_log_likelihoods(
    model: Qwen2Audio, batches: Iterable[Batch], rows: int, encoder: AnnotationEncoder, mesh: Mesh
) -> np.ndarray:
    """Log-probability of every token of every label as the answer to what each row of an evaluation stream asks.

    Args:
        model: from `load_annotator`.
        batches: for instance `evaluation_batches` with `encoder` as the prompt; their targets are not looked at.
        rows: how many utterances they hold.
        encoder: says what the labels' tokens are.
        mesh: where the model lives.

    Returns:
        float32 [rows, labels, longest label], 0 behind a label's end; the sum over the last axis is the label's
        log-likelihood. See `label_log_probs` for what a temperature or a constraint makes of it.
    """
    labels_ln, mask_ln = encoder.labels_ln, encoder.label_mask_ln

    def score(batch: dict[str, jax.Array]) -> jax.Array:
        inputs = [batch[name] for name in ("audio", "audio_samples", "tokens", "token_mask")]
        log_probs_bln = _score(model, *inputs, labels_ln, mask_ln)
        return log_probs_bln.reshape(len(log_probs_bln), -1)

    return predict_rows(batches, rows, labels_ln.size, score, mesh).reshape(rows, *labels_ln.shape)


_score = nnx.jit(label_log_probs)  # one for all calls: a persona compiles nothing that another one has compiled
