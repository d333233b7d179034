"""Qwen2's decoder without its output layer: embeddings in, normed hidden states out.

A text is read in parts, each of which attends to itself and to the parts before it. A part of one row is read once for
all rows of the parts behind it: so a prompt that all clips share costs what one clip costs, forward and backward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from aer_jax.config import Remat
from aer_jax.models.adapters.lora import dropout_masks
from aer_jax.models.attention import Mask, Pattern, attention
from aer_jax.models.layers import Embedding, Linear, RMSNorm, scan, stack
from aer_jax.models.packing import Packing, for_each


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
    """Positions [1, time] and causal mask of text that follows `before` other tokens.

    Padding behind the text needs no mask: no token of the text sees it.
    """
    return before + jnp.arange(time)[None], Mask(None, Pattern(before))


class Part(NamedTuple):
    """A run of tokens with its positions and mask.

    Attributes:
        embeddings_btd: [batch or 1, time, hidden_size].
        positions_bt: [batch or 1, time], for the rotary embeddings.
        mask: over all positions up to this part's end; what no valid token attends to has no effect.
    """

    embeddings_btd: jax.Array
    positions_bt: jax.Array
    mask: Mask


def label_part(embeddings_lnd: jax.Array, lengths_b: jax.Array, mask_bt: jax.Array, prefix: int, rows: int) -> Part:
    """Labels packed behind rows of text, each of which reads the text and itself alone.

    Args:
        embeddings_lnd: [labels, tokens, hidden_size], the same behind every row.
        lengths_b, mask_bt: tokens of each row, and which they are; they come first.
        prefix: tokens before every row.
        rows: number of rows.
    """
    labels, length, width = embeddings_lnd.shape
    own_p = np.repeat(np.arange(labels), length)
    before = prefix + mask_bt.shape[1]
    valid_bs = jnp.pad(mask_bt, ((0, 0), (prefix, labels * length)), constant_values=True)
    positions_bp = prefix + lengths_b[:, None] + np.tile(np.arange(length), labels)
    pattern = Pattern(before, np.concatenate([np.full(before, -1), own_p]))
    embeddings_bpd = jnp.broadcast_to(embeddings_lnd.reshape(-1, width), (rows, labels * length, width))
    return Part(embeddings_bpd, positions_bp, Mask(valid_bs, pattern))


def with_prefix(prefix_1pd: jax.Array, embeddings_btd: jax.Array) -> list[Part]:
    """Rows of causal text after a shared prefix; a prefix of length 0 is left out."""
    length = prefix_1pd.shape[1]
    rows = Part(embeddings_btd, *causal(embeddings_btd.shape[1], length))
    return [Part(prefix_1pd, *causal(length)), rows] if length else [rows]


class Attention(nnx.Module):
    """Masked self-attention; several query heads may share one key and value head."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        d = config.hidden_size
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or d // heads
        self.q_proj = Linear(d, heads * self.head_dim, bias=True, rngs=rngs)
        self.k_proj = Linear(d, kv_heads * self.head_dim, bias=True, rngs=rngs)
        self.v_proj = Linear(d, kv_heads * self.head_dim, bias=True, rngs=rngs)
        self.o_proj = Linear(heads * self.head_dim, d, bias=False, rngs=rngs)

    @property
    def linears(self) -> dict[str, Linear]:
        """By name, in the order of the dropout masks."""
        return {"q_proj": self.q_proj, "k_proj": self.k_proj, "v_proj": self.v_proj, "o_proj": self.o_proj}

    def __call__(self, x_cnd: jax.Array, packing: Packing, ropes, masks: Sequence[Mask], dropped) -> jax.Array:
        """The residual update of the states.

        Args:
            x_cnd: states of all parts, packed.
            packing: how.
            ropes, masks: of each part: cosine and sine of its positions, and its mask, see `Part`.
            dropped: masks of dropout by linear layer, see `dropout_masks`.
        """
        projections = {"q_proj": self.q_proj, "k_proj": self.k_proj, "v_proj": self.v_proj}
        qkv = [packing.unpack(self._heads(linear(x_cnd, dropped.get(name)))) for name, linear in projections.items()]
        keys, values, attended = [], [], []
        for q_bthk, k_bthk, v_bthk, rope, mask in zip(*qkv, ropes, masks, strict=True):
            keys.append(rotate(k_bthk, *rope))
            values.append(v_bthk)
            k_bshk, v_bshk = (jnp.concatenate([for_each(x, len(q_bthk)) for x in xs], axis=1) for xs in (keys, values))
            y_bthk = attention(rotate(q_bthk, *rope), k_bshk, v_bshk, mask)
            attended.append(y_bthk.reshape(*y_bthk.shape[:2], -1))
        return self.o_proj(packing.pack(attended), dropped.get("o_proj"))

    def _heads(self, x_cnd: jax.Array) -> jax.Array:
        return x_cnd.reshape(*x_cnd.shape[:2], -1, self.head_dim)


class MLP(nnx.Module):
    """SwiGLU feed-forward layer."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        d, f = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(d, f, bias=False, rngs=rngs)
        self.up_proj = Linear(d, f, bias=False, rngs=rngs)
        self.down_proj = Linear(f, d, bias=False, rngs=rngs)

    @property
    def linears(self) -> dict[str, Linear]:
        """By name, in the order of the dropout masks."""
        return {"gate_proj": self.gate_proj, "up_proj": self.up_proj, "down_proj": self.down_proj}

    def __call__(self, x_cnd: jax.Array, dropped: Mapping[str, jax.Array]) -> jax.Array:
        gate_cnf = jax.nn.silu(self.gate_proj(x_cnd, dropped.get("gate_proj")))
        return self.down_proj(gate_cnf * self.up_proj(x_cnd, dropped.get("up_proj")), dropped.get("down_proj"))


class DecoderLayer(nnx.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, config, *, rngs: nnx.Rngs):
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, rngs=rngs)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, rngs=rngs)

    def __call__(self, x_cnd: jax.Array, packing: Packing, ropes, masks: Sequence[Mask], keys) -> jax.Array:
        """The new states; arguments are those of `Attention`, and a key for the dropout of each part."""
        dropped = dropout_masks(self.self_attn.linears | self.mlp.linears, keys, packing.shapes, packing.pack)
        x_cnd = x_cnd + self.self_attn(self.input_layernorm(x_cnd), packing, ropes, masks, dropped)
        return x_cnd + self.mlp(self.post_attention_layernorm(x_cnd), dropped)


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
        self, prefix_1pd: jax.Array, embeddings_btd: jax.Array, key: jax.Array | None = None, *behind: Part
    ) -> tuple[jax.Array, ...]:
        """Decode rows after their shared prefix.

        Args:
            prefix_1pd: [1, prefix, hidden_size], as if every row began with it; may have length 0.
            embeddings_btd: [batch, time, hidden_size]; what stands behind the text of a row changes nothing of it.
            key: for the adapters' dropout; None in evaluation. The masks of the prefix are those of all rows.
            behind: further parts behind the rows.

        Returns:
            the states of prefix, rows and further parts.
        """
        states = self.decode([*with_prefix(prefix_1pd, embeddings_btd), *behind], key)
        prefix = states[0][:1] if prefix_1pd.shape[1] else prefix_1pd
        return prefix, *states[-1 - len(behind) :]

    def attend(
        self,
        embeddings_btd: jax.Array,
        positions_bt: jax.Array,
        mask: Mask,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The states of a text in one part, see `Part`."""
        return self.decode([Part(embeddings_btd, positions_bt, mask)], key)[0]

    def decode(self, parts: Sequence[Part], key: jax.Array | None = None) -> list[jax.Array]:
        """The states of every part of a text; of a part that all rows share, one row for each copy of `Packing`."""
        embeddings = [part.embeddings_btd for part in parts]
        packing = Packing.of(embeddings)
        ropes = [rotary(part.positions_bt, self.head_dim, self.theta) for part in parts]
        masks = [part.mask for part in parts]

        def call(layer, x_cnd, keys):
            return layer(x_cnd, packing, ropes, masks, keys), None

        x_cnd, _ = scan(self.layers, packing.pack(embeddings), call, key=key, parts=len(parts), remat=self.remat)
        return packing.unpack(self.norm(x_cnd))
