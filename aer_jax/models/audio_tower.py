"""Qwen2-Audio's audio tower: a Whisper encoder that pools pairs of frames before its last norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from aer_jax.base.lengths import state_count
from aer_jax.config import Remat
from aer_jax.models.adapters.lora import dropout_masks
from aer_jax.models.attention import Mask, attention
from aer_jax.models.layers import INIT_STD, Embedding, LayerNorm, Linear, gelu, scan, stack


class AudioStates(NamedTuple):
    """Outputs of the audio tower.

    Attributes:
        states_btd: [batch, tokens, d_model], after pooling and the last norm; valid up to `lengths.token_count`.
        statistics_lbe: float32 [layers, batch, 2 d_model], mean and standard deviation over the valid frames of each
            layer's output.
    """

    states_btd: jax.Array
    statistics_lbe: jax.Array


class Conv1d(nnx.Module):
    """Convolution over time, kernel 3, padding 1."""

    def __init__(self, d_in: int, d_out: int, *, stride: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(INIT_STD * jax.random.normal(rngs.params(), (3, d_in, d_out)))
        self.bias = nnx.Param(jnp.zeros(d_out))
        self.stride = stride

    def __call__(self, x_btd: jax.Array) -> jax.Array:
        y_btd = jax.lax.conv_general_dilated(
            x_btd, self.kernel[...], (self.stride,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC")
        )
        return y_btd + self.bias[...]


class Attention(nnx.Module):
    """Multi-head self-attention over the valid frames; the key projection has no bias."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        d = config.d_model
        self.heads = config.encoder_attention_heads
        self.q_proj = Linear(d, d, bias=True, rngs=rngs)
        self.k_proj = Linear(d, d, bias=False, rngs=rngs)
        self.v_proj = Linear(d, d, bias=True, rngs=rngs)
        self.out_proj = Linear(d, d, bias=True, rngs=rngs)

    @property
    def linears(self) -> dict[str, Linear]:
        """By name, in the order of the dropout masks."""
        return {"q_proj": self.q_proj, "k_proj": self.k_proj, "v_proj": self.v_proj, "out_proj": self.out_proj}

    def __call__(self, x_btd: jax.Array, lengths_b: jax.Array, masks: Mapping[str, jax.Array]) -> jax.Array:
        batch, time, d = x_btd.shape
        heads = (batch, time, self.heads, d // self.heads)
        q_bthk = self.q_proj(x_btd, masks.get("q_proj")).reshape(heads)
        k_bthk = self.k_proj(x_btd, masks.get("k_proj")).reshape(heads)
        v_bthk = self.v_proj(x_btd, masks.get("v_proj")).reshape(heads)
        valid_bt = jnp.arange(time) < lengths_b[:, None]
        y_bthk = attention(q_bthk, k_bthk, v_bthk, Mask(valid_bt))
        return self.out_proj(y_bthk.reshape(batch, time, d), masks.get("out_proj"))


class EncoderLayer(nnx.Module):
    """Pre-norm attention and a feed-forward layer with the exact (erf) GELU."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        d = config.d_model
        self.self_attn = Attention(config, rngs=rngs)
        self.self_attn_layer_norm = LayerNorm(d)
        self.fc1 = Linear(d, config.encoder_ffn_dim, bias=True, rngs=rngs)
        self.fc2 = Linear(config.encoder_ffn_dim, d, bias=True, rngs=rngs)
        self.final_layer_norm = LayerNorm(d)

    def __call__(self, x_btd: jax.Array, lengths_b: jax.Array, keys: jax.Array | None) -> jax.Array:
        linears = self.self_attn.linears | {"fc1": self.fc1, "fc2": self.fc2}
        masks = dropout_masks(linears, keys, [x_btd.shape[:2]])
        x_btd = x_btd + self.self_attn(self.self_attn_layer_norm(x_btd), lengths_b, masks)
        hidden_btf = gelu(self.fc1(self.final_layer_norm(x_btd), masks.get("fc1")))
        return x_btd + self.fc2(hidden_btf, masks.get("fc2"))


class AudioTower(nnx.Module):
    """Log-mel frames to audio states.

    Args:
        config: transformers' Qwen2AudioEncoderConfig.
    """

    def __init__(self, config, *, remat: Remat = "none", rngs: nnx.Rngs):
        d = config.d_model
        self.remat = remat
        self.conv1 = Conv1d(config.num_mel_bins, d, stride=1, rngs=rngs)
        self.conv2 = Conv1d(d, d, stride=2, rngs=rngs)
        self.embed_positions = Embedding(config.max_source_positions, d, rngs=rngs)
        self.layers = stack(config.encoder_layers, lambda rngs: EncoderLayer(config, rngs=rngs), rngs)
        self.layer_norm = LayerNorm(d)

    def __call__(self, mel_bfm: jax.Array, frames_b: jax.Array, key: jax.Array | None = None) -> AudioStates:
        """Encode a batch of windows.

        Args:
            mel_bfm: [batch, frames, mel bins], any even number of frames up to 30 s (3000).
            frames_b: valid frames of each clip; what lies behind them changes nothing.
            key: for the adapters' dropout; None in evaluation.
        """
        dtype = self.conv1.kernel.dtype
        x_btd = gelu(self.conv1(mel_bfm.astype(dtype)))
        x_btd = gelu(self.conv2(x_btd))
        time = x_btd.shape[1]
        x_btd = x_btd + self.embed_positions.embedding[:time]
        lengths_b = state_count(frames_b)
        valid_bt1 = (jnp.arange(time) < lengths_b[:, None])[..., None]

        def call(layer, x_btd, keys):
            x_btd = layer(x_btd, lengths_b, keys)
            return x_btd, masked_statistics(x_btd, valid_bt1)

        x_btd, statistics_lbe = scan(self.layers, x_btd, call, key=key, remat=self.remat)
        pairs = time // 2
        pooled_btd = x_btd[:, : 2 * pairs].reshape(x_btd.shape[0], pairs, 2, -1).mean(axis=2)
        return AudioStates(self.layer_norm(pooled_btd), statistics_lbe)


def masked_statistics(x_btd: jax.Array, valid_bt1: jax.Array) -> jax.Array:
    """Mean and standard deviation over the valid steps, float32 [batch, 2 d]; the gradient stays finite at std 0."""
    x_btd = jnp.where(valid_bt1, x_btd.astype(jnp.float32), 0)
    count_b1 = jnp.maximum(valid_bt1.sum(axis=1), 1)
    mean_bd = x_btd.sum(axis=1) / count_b1
    centred_btd = jnp.where(valid_bt1, x_btd - mean_bd[:, None], 0)
    variance_bd = jnp.square(centred_btd).sum(axis=1) / count_b1
    return jnp.concatenate([mean_bd, jnp.sqrt(variance_bd + 1e-6)], axis=-1)
