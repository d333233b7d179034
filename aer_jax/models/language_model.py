"""Qwen2's decoder without its output layer: embeddings in, normed hidden states out.

A text is read in parts, each of which attends to itself and to the parts before it. A part of one row is read once for
all rows of the parts behind it: so a prompt that all clips share costs what one clip costs, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aer_jax.config import Remat
from aer_jax.models.attention import Mask, attention
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


def causal(time: int, before: int = 0) -> tuple[jax.Array, Mask]:
    """Positions [1, time] and attention mask of text behind `before` other tokens.

    Padding behind the text needs no mask: no token of the text sees it.
    """
    return before + jnp.arange(time)[None], Mask(None, np.tri(time, before + time, before, dtype=bool))


class Part(NamedTuple):
    """A part of a text.

    Attributes:
        embeddings_btd: [batch or 1, time, hidden_size].
        positions_bt: [batch or 1, time], for the rotary embeddings.
        mask: over all positions up to this part's end; what no valid token attends to has no effect.
    """

    embeddings_btd: jax.Array
    positions_bt: jax.Array
    mask: Mask


def after(prefix_1pd: jax.Array, embeddings_btd: jax.Array) -> list[Part]:
    """Rows of causal text behind a prefix that they share; of length 0 it is no part."""
    length = prefix_1pd.shape[1]
    rows = Part(embeddings_btd, *causal(embeddings_btd.shape[1], length))
    return [Part(prefix_1pd, *causal(length)), rows] if length else [rows]


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

    def __call__(self, x_btd: jax.Array, rope, mask: Mask, before, key) -> tuple[jax.Array, list]:
        """One part.

        Args:
            x_btd: its states.
            rope: cosine and sine of its positions.
            mask: see `Part`.
            before: turned keys and values of each part before it.
            key: for dropout.

        Returns:
            what is added to its states, and `before` with its own keys and values behind it.
        """
        batch, time, _ = x_btd.shape
        keys = split_key(key, 4)
        q_bthk = self.q_proj(x_btd, keys[0]).reshape(batch, time, self.heads, self.head_dim)
        k_bthk = self.k_proj(x_btd, keys[1]).reshape(batch, time, self.kv_heads, self.head_dim)
        v_bthk = self.v_proj(x_btd, keys[2]).reshape(batch, time, self.kv_heads, self.head_dim)
        seen = [*before, (rotate(k_bthk, *rope), v_bthk)]
        k_bshk, v_bshk = (
            jnp.concatenate([jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in xs], axis=1)
            for xs in zip(*seen, strict=True)
        )
        y_bthk = attention(rotate(q_bthk, *rope), k_bshk, v_bshk, mask)
        return self.o_proj(y_bthk.reshape(batch, time, -1), keys[3]), seen


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

    def __call__(self, x_btd: jax.Array, rope, mask: Mask, before, key) -> tuple[jax.Array, list]:
        """One part's new states, and what the next part attends to; arguments are those of `Attention`."""
        attention_key, mlp_key = split_key(key, 2)
        y_btd, seen = self.self_attn(self.input_layernorm(x_btd), rope, mask, before, attention_key)
        x_btd = x_btd + y_btd
        return x_btd + self.mlp(self.post_attention_layernorm(x_btd), mlp_key), seen


class LanguageModel(nnx.Module):
    """Token or audio embeddings to hidden states after the final norm.

    Args:
        config: transformers' Qwen2Config.
    """

    def __init__(self, config, *, remat: Remat = "none", rngs: nnx.Rngs):
        self.remat = remat
        self.theta = float(config.rope_parameters["rope_theta"])
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, rngs=rngs)
        self.layers = stack(config.num_hidden_layers, lambda rngs: DecoderLayer(config, rngs=rngs), rngs)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def __call__(
        self, prefix_1pd: jax.Array, embeddings_btd: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Read rows behind what they have in common.

        Args:
            prefix_1pd: [1, prefix, hidden_size], as if every row began with it; may have length 0.
            embeddings_btd: [batch, time, hidden_size]; what stands behind the text of a row changes nothing of it.
            key: for the adapters' dropout; None in evaluation. The masks of the prefix are those of all rows.

        Returns:
            the states of prefix and rows.
        """
        *prefix, rows_btd = self.read(after(prefix_1pd, embeddings_btd), key)
        return (prefix[0] if prefix else prefix_1pd), rows_btd

    def attend(
        self,
        embeddings_btd: jax.Array,
        positions_bt: jax.Array,
        mask: Mask,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The states of a text in one part, see `Part`."""
        return self.read([Part(embeddings_btd, positions_bt, mask)], key)[0]

    def read(self, parts: Sequence[Part], key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """The states of every part of a text; all go through a layer together, so its weights are fetched once."""
        ropes = [rotary(part.positions_bt, self.head_dim, self.theta) for part in parts]
        masks = [part.mask for part in parts]

        def call(layer, xs, key):
            seen: list[tuple[jax.Array, jax.Array]] = []
            new = []
            for x_btd, rope, mask, part_key in zip(xs, ropes, masks, split_key(key, len(xs)), strict=True):
                x_btd, seen = layer(x_btd, rope, mask, seen, part_key)
                new.append(x_btd)
            return tuple(new), None

        xs, _ = scan(self.layers, tuple(part.embeddings_btd for part in parts), call, key=key, remat=self.remat)
        return tuple(self.norm(x_btd) for x_btd in xs)
