"""Qwen2's decoder without its output layer: embeddings in, normed hidden states out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from aer_jax.models.dropout import split_key
from aer_jax.models.layers import Embedding, Linear, RMSNorm, scan, stack


def rotary(positions_bt: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of rotary embeddings (Su et al., 2021), float32 [batch, time, 1, head_dim / 2]."""
    frequency_k = theta ** -(jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle_bt1k = positions_bt[..., None, None].astype(jnp.float32) * frequency_k
    return jnp.cos(angle_bt1k), jnp.sin(angle_bt1k)


def rotate(x_bthk: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turn the pairs (k, k + head_dim / 2) of queries or keys, in float32."""
    first, second = jnp.split(x_bthk.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_bthk.dtype)


def causal(mask_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions [batch, time] and attention mask [batch, time, time] of text whose valid tokens are marked True."""
    time = mask_bt.shape[1]
    positions_bt = jnp.maximum(jnp.cumsum(mask_bt, axis=1) - 1, 0)
    return positions_bt, jnp.tril(jnp.ones((time, time), bool)) & mask_bt[:, None, :]


class Attention(nnx.Module):
    """Masked self-attention; several query heads may share one key and value head."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        d = config.hidden_size
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or d // self.heads
        self.q_proj = Linear(d, self.heads * self.head_dim, bias=True, rngs=rngs)
        self.k_proj = Linear(d, self.kv_heads * self.head_dim, bias=True, rngs=rngs)
        self.v_proj = Linear(d, self.kv_heads * self.head_dim, bias=True, rngs=rngs)
        self.o_proj = Linear(self.heads * self.head_dim, d, bias=False, rngs=rngs)

    def __call__(self, x_btd, cos, sin, mask_b1ts, key) -> jax.Array:
        batch, time, _ = x_btd.shape
        keys = split_key(key, 4)
        q_bthk = self.q_proj(x_btd, keys[0]).reshape(batch, time, self.heads, self.head_dim)
        k_bthk = self.k_proj(x_btd, keys[1]).reshape(batch, time, self.kv_heads, self.head_dim)
        v_bthk = self.v_proj(x_btd, keys[2]).reshape(batch, time, self.kv_heads, self.head_dim)
        y_bthk = jax.nn.dot_product_attention(
            rotate(q_bthk, cos, sin), rotate(k_bthk, cos, sin), v_bthk, mask=mask_b1ts
        )
        return self.o_proj(y_bthk.reshape(batch, time, -1), keys[3])


class MLP(nnx.Module):
    """SwiGLU feed-forward layer."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        d, f = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(d, f, bias=False, rngs=rngs)
        self.up_proj = Linear(d, f, bias=False, rngs=rngs)
        self.down_proj = Linear(f, d, bias=False, rngs=rngs)

    def __call__(self, x_btd: jax.Array, key: jax.Array | None) -> jax.Array:
        gate_key, up_key, down_key = split_key(key, 3)
        return self.down_proj(jax.nn.silu(self.gate_proj(x_btd, gate_key)) * self.up_proj(x_btd, up_key), down_key)


class DecoderLayer(nnx.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, rngs=rngs)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, rngs=rngs)

    def __call__(self, x_btd, cos, sin, mask_b1ts, key) -> jax.Array:
        attention_key, mlp_key = split_key(key, 2)
        x_btd = x_btd + self.self_attn(self.input_layernorm(x_btd), cos, sin, mask_b1ts, attention_key)
        return x_btd + self.mlp(self.post_attention_layernorm(x_btd), mlp_key)


class LanguageModel(nnx.Module):
    """Token or audio embeddings to hidden states after the final norm.

    Args:
        config: transformers' Qwen2Config.
    """

    def __init__(self, config, *, remat: str = "none", rngs: nnx.Rngs):
        self.remat = remat
        self.theta = float(config.rope_parameters["rope_theta"])
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, rngs=rngs)
        self.layers = stack(config.num_hidden_layers, lambda rngs: DecoderLayer(config, rngs=rngs), rngs)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def __call__(self, embeddings_btd: jax.Array, mask_bt: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Run the decoder.

        Args:
            embeddings_btd: [batch, time, hidden_size].
            mask_bt: True at valid positions; padding may stand on either side.
            key: for the adapters' dropout; None in evaluation.
        """
        return self.attend(embeddings_btd, *causal(mask_bt), key)

    def attend(
        self,
        embeddings_btd: jax.Array,
        positions_bt: jax.Array,
        mask_bts: jax.Array,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """As `__call__`, where the caller says what each token sees.

        Args:
            embeddings_btd: [batch, time, hidden_size].
            positions_bt: for the rotary embeddings.
            mask_bts: True where token t may attend to token s; what no valid token attends to has no effect.
            key: for dropout.
        """
        cos, sin = rotary(positions_bt, self.head_dim, self.theta)
        mask_b1ts = mask_bts[:, None]

        def call(layer, x_btd, key):
            return layer(x_btd, cos, sin, mask_b1ts, key), None

        x_btd, _ = scan(self.layers, embeddings_btd, call, key=key, remat=self.remat)
        return self.norm(x_btd)
