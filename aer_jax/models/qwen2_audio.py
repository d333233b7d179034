"""Qwen2-Audio: the audio tower's states take the place of the prompt's <|AUDIO|> tokens."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aer_jax.base.lengths import frame_count
from aer_jax.config import Remat
from aer_jax.models.adapters.dropout import split_key
from aer_jax.models.adapters.lora import dropout_masks
from aer_jax.models.audio_tower import AudioTower
from aer_jax.models.language_model import LanguageModel, label_part
from aer_jax.models.layers import Linear
from aer_jax.models.log_mel import log_mel

NO_PREFIX = np.zeros(0, np.int32)


class Features(NamedTuple):
    """Features for a head.

    Attributes:
        hidden_bth: [batch, time, hidden_size], the language model's states after the final norm.
        mask_bt: True at valid positions, which come first in every row.
        audio_lbe: float32 [audio layers, batch, 2 d_model], see `AudioStates.statistics_lbe`.
        prefix_ph: [prefix, hidden_size], the states of what stands before every row; there may be none.
        answers_bph: [batch, 1 + labels x tokens, hidden_size], the states behind a prompt that predict tokens of
            labels: its last one, then those of packed labels. None where no labels were given.
    """

    hidden_bth: jax.Array
    mask_bt: jax.Array
    audio_lbe: jax.Array
    prefix_ph: jax.Array
    answers_bph: jax.Array | None = None


def roll_left_padding(tokens_bt: jax.Array, mask_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Roll rows so that their tokens come first, whichever side was padded."""
    first_b1 = jnp.argmax(mask_bt, axis=1)[:, None]
    at_bt = (first_b1 + jnp.arange(mask_bt.shape[1])) % mask_bt.shape[1]
    return jnp.take_along_axis(tokens_bt, at_bt, axis=1), jnp.take_along_axis(mask_bt, at_bt, axis=1)


class Projector(nnx.Module):
    """Audio states to token embeddings."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        self.linear = Linear(config.audio_config.d_model, config.text_config.hidden_size, bias=True, rngs=rngs)

    def __call__(self, x_btd: jax.Array, key: jax.Array | None = None) -> jax.Array:
        masks = dropout_masks({"linear": self.linear}, None if key is None else key[None], [x_btd.shape[:2]])
        return self.linear(x_btd, masks.get("linear"))


class Qwen2Audio(nnx.Module):
    """The base model; attribute names are those of transformers, so one rule maps all weights.

    Args:
        config: transformers' Qwen2AudioConfig, of any size.
        output_layer: whether to hold the vocabulary projection; fine-tuning does without.
        remat: see `layers.scan`.
    """

    def __init__(self, config, *, output_layer: bool = False, remat: Remat = "none", rngs: nnx.Rngs):
        text = config.text_config
        self.audio_token = config.audio_token_id
        self.mel_bins = config.audio_config.num_mel_bins
        self.audio_tower = AudioTower(config.audio_config, remat=remat, rngs=rngs)
        self.multi_modal_projector = Projector(config, rngs=rngs)
        self.language_model = LanguageModel(text, remat=remat, rngs=rngs)
        self.lm_head = (
            Linear(text.hidden_size, text.vocab_size, bias=False, rngs=rngs) if output_layer else nnx.data(None)
        )

    def __call__(
        self,
        audio_bs: jax.Array,
        samples_b: jax.Array,
        tokens_bt: jax.Array,
        mask_bt: jax.Array,
        prefix_p: jax.Array | np.ndarray = NO_PREFIX,
        key: jax.Array | None = None,
        labels_ln: np.ndarray | None = None,
    ) -> Features:
        """Encode the audio and decode the text of a batch.

        Args:
            audio_bs: float32 [batch, samples] at 16 kHz, zero padded to a window of any length up to 30 s.
            samples_b: valid samples of each clip.
            tokens_bt: the prompt, with as many audio tokens as `lengths.token_count` says.
            mask_bt: True at the prompt's tokens, padding on either side.
            prefix_p: text tokens that stand before every row, read once for all; as if each row began with them.
            key: for dropout; None in evaluation.
            labels_ln: tokens of labels, [labels, tokens], to be read behind every prompt, each as if it alone followed.
        """
        mel_bfm = log_mel(audio_bs, self.mel_bins)
        return self.from_mel(mel_bfm, frame_count(samples_b), tokens_bt, mask_bt, prefix_p, key, labels_ln)

    def from_mel(self, mel_bfm, frames_b, tokens_bt, mask_bt, prefix_p, key=None, labels_ln=None) -> Features:
        """As `__call__`, from log-mel features [batch, frames, bins] and the count of valid frames."""
        *audio_keys, text_key = split_key(key, 3)
        tokens_bt, mask_bt = roll_left_padding(tokens_bt, mask_bt)
        embeddings_bth, audio_lbe = self.merge_audio_tokens(mel_bfm, frames_b, tokens_bt, audio_keys)
        embed = self.language_model.embed_tokens.embedding
        lengths_b = mask_bt.sum(axis=1)
        labels = (
            [] if labels_ln is None else [label_part(embed[labels_ln], lengths_b, mask_bt, len(prefix_p), len(mask_bt))]
        )
        prefix_1ph, hidden_bth, *rest = self.language_model(embed[prefix_p][None], embeddings_bth, text_key, *labels)
        answers_bph = None
        if rest:
            last_b1h = jnp.take_along_axis(hidden_bth, lengths_b[:, None, None] - 1, axis=1)
            answers_bph = jnp.concatenate([last_b1h, *rest], axis=1)
        return Features(hidden_bth, mask_bt, audio_lbe, prefix_1ph[0], answers_bph)

    def audio_statistics(self, audio_bs: jax.Array, samples_b: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """`Features.audio_lbe` alone, without a language model; arguments are those of `__call__`."""
        return self.audio_tower(log_mel(audio_bs, self.mel_bins), frame_count(samples_b), key).statistics_lbe

    def merge_audio_tokens(self, mel_bfm, frames_b, tokens_bt, keys=(None, None)) -> tuple[jax.Array, jax.Array]:
        """The language model's input embeddings [batch, time, hidden_size], and `Features.audio_lbe`.

        Args:
            mel_bfm, frames_b, tokens_bt: as in `from_mel`.
            keys: for the dropout of audio tower and projector.
        """
        audio_bth, audio_lbe = self.encode_audio(mel_bfm, frames_b, keys)
        return self.insert_audio(audio_bth, tokens_bt), audio_lbe

    def encode_audio(self, mel_bfm, frames_b, keys=(None, None)) -> tuple[jax.Array, jax.Array]:
        """Projected audio states [batch, audio states, hidden_size], and `Features.audio_lbe`."""
        audio_key, projector_key = keys
        audio = self.audio_tower(mel_bfm, frames_b, audio_key)
        return self.multi_modal_projector(audio.states_btd, projector_key), audio.statistics_lbe

    def insert_audio(self, audio_bth: jax.Array, tokens_bt: jax.Array) -> jax.Array:
        """Embeddings [batch, time, hidden_size]; the n-th audio token of a row is replaced by its n-th audio state."""
        embeddings_bth = self.language_model.embed_tokens.embedding[tokens_bt]
        is_audio_bt = tokens_bt == self.audio_token
        nth_bt = jnp.clip(jnp.cumsum(is_audio_bt, axis=1) - 1, 0, audio_bth.shape[1] - 1)
        heard_bth = jnp.take_along_axis(audio_bth, nth_bt[..., None], axis=1)
        return jnp.where(is_audio_bt[..., None], heard_bth, embeddings_bth)

    def logits(self, hidden_bth: jax.Array) -> jax.Array:
        """Next-token logits, computed in float32; only with `output_layer`."""
        assert self.lm_head is not None, "made without output_layer"
        return jnp.matmul(hidden_bth, self.lm_head.kernel[...], preferred_element_type=jnp.float32)
