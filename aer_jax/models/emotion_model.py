"""Emotion model: a frozen Qwen2-Audio with adapters, and a head over emotions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aer_jax.base.chat import label_tokens
from aer_jax.base.config import read_config
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.config import ModelConfig
from aer_jax.errors import UserError
from aer_jax.models.adapters import lora
from aer_jax.models.adapters.dropout import split_key
from aer_jax.models.answers_head import AnswersHead, Labels
from aer_jax.models.emotion_head import HeadStatistics, PaperHead, ReadoutHead
from aer_jax.models.qwen2_audio import NO_PREFIX, Features, Qwen2Audio
from aer_jax.models.sharding import key_names, sharding
from aer_jax.models.weights import load_base, read_output_columns

# What is trained, and what a checkpoint of a run holds next to it; all else is the frozen base.
TRAINABLE = nnx.All(nnx.Any(nnx.LoRAParam, nnx.PathContains("emotion_head")), nnx.Not(HeadStatistics))
STATISTICS = HeadStatistics


class ModelInputs(NamedTuple):
    """What the model is given: see `Qwen2Audio.__call__` for shapes; a batch without a prefix has one of length 0."""

    audio: jax.Array
    audio_samples: jax.Array
    tokens: jax.Array
    token_mask: jax.Array
    prefix: jax.Array | np.ndarray = NO_PREFIX


class EmotionModel(nnx.Module):
    """Logits over emotions from speech and prompt.

    Args:
        base_config: transformers' Qwen2AudioConfig.
        config: which adapters, which head.
        classes: number of emotions.
        labels: their tokens as answers, for the answers head.
    """

    def __init__(self, base_config, config: ModelConfig, classes: int, labels: Labels = (), *, rngs: nnx.Rngs):
        audio, text = base_config.audio_config, base_config.text_config
        self.base = Qwen2Audio(base_config, remat=config.remat, rngs=rngs)
        settings = config.lora
        lora.attach(
            self.base,
            settings.targets,
            rank=settings.rank,
            alpha=settings.alpha,
            dropout=settings.dropout,
            key=rngs.params(),
        )
        self.emotion_head: PaperHead | ReadoutHead | AnswersHead
        if config.head == "answers":
            self.emotion_head = AnswersHead(text.hidden_size, labels)
        elif config.head == "paper":
            if text.hidden_size % PaperHead.heads:
                raise UserError(
                    f"model.head: the paper's head needs a hidden size that divides by {PaperHead.heads}, and this "
                    f"checkpoint's is {text.hidden_size}; use model.head=readout."
                )
            self.emotion_head = PaperHead(text.hidden_size, classes, rngs=rngs)
        else:
            size = audio.encoder_layers * 2 * audio.d_model
            hidden_size = text.hidden_size if config.readout == "audio+text" else 0
            self.emotion_head = ReadoutHead(size, hidden_size, classes, rngs=rngs)

    @property
    def readout(self) -> ReadoutHead:
        """The head of a model that has the readout, which alone is standardised and fitted."""
        assert isinstance(self.emotion_head, ReadoutHead)
        return self.emotion_head

    def features(self, batch: ModelInputs, key: jax.Array | None = None) -> Features:
        """The head's inputs; a head of the audio alone skips the language model, and the text has length 0."""
        if isinstance(self.emotion_head, ReadoutHead) and not self.emotion_head.sizes[1]:
            audio_lbe = self.base.audio_statistics(batch.audio, batch.audio_samples, key)
            rows = audio_lbe.shape[1]
            return Features(jnp.zeros((rows, 0, 0)), jnp.zeros((rows, 0), bool), audio_lbe, jnp.zeros((0, 0)))
        labels_ln = self.emotion_head.packed_ln if isinstance(self.emotion_head, AnswersHead) else None
        return self.base(*batch, key, labels_ln)

    def __call__(self, batch: ModelInputs, key: jax.Array | None = None) -> jax.Array:
        """Logits, float32 [batch, classes]; `key` draws dropout, None turns it off."""
        base_key, head_key = split_key(key, 2)
        return self.emotion_head(self.features(batch, base_key), head_key)


def model_builder(config: ModelConfig, classes: Sequence[str], seed: int = 0) -> Callable[[], EmotionModel]:
    """A function that makes the model with random weights, to be traced.

    Raises:
        UserError: a class cannot be an answer, see `chat.reply`.
    """
    base_config = read_config(config.checkpoint)
    labels = label_tokens(config.checkpoint, classes) if config.head == "answers" else ()
    return lambda: EmotionModel(base_config, config, len(classes), labels, rngs=nnx.Rngs(seed))


def load_model(config: ModelConfig, classes: Sequence[str], mesh: jax.sharding.Mesh, seed: int) -> EmotionModel:
    """Build the model on a mesh: the base from its checkpoint, fresh adapters and head from `seed`.

    The base never passes through the host whole, see `weights.load_base`.
    """
    checkpoint = Checkpoint(config.checkpoint)
    build = model_builder(config, classes, seed)

    def fresh() -> nnx.State:
        return nnx.state(build(), nnx.Any(TRAINABLE, STATISTICS))

    model = nnx.eval_shape(build)
    load_base(model.base, checkpoint, lambda path, shape: sharding(mesh, path, shape), jnp.dtype(config.dtype))
    where = jax.tree.map_with_path(
        lambda path, leaf: sharding(mesh, key_names(path), leaf.shape), jax.eval_shape(fresh)
    )
    nnx.update(model, jax.jit(fresh, out_shardings=where)())
    if isinstance(head := model.emotion_head, AnswersHead):
        columns_hu = read_output_columns(checkpoint, head.tokens)
        head.columns.set_value(jax.device_put(columns_hu, head.columns.sharding))
    return model
