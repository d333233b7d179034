"""Heads: hidden states -> logits over emotions, whose softmax is the predicted distribution."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from aer_jax.models.adapters.dropout import dropout, split_key
from aer_jax.models.layers import LayerNorm, Linear, gelu
from aer_jax.models.qwen2_audio import Features


class HeadStatistics(nnx.Variable):
    """Statistics of the training set, kept with the head and never trained."""


def torch_linear(d_in: int, d_out: int, *, rngs: nnx.Rngs) -> Linear:
    """A linear layer with torch.nn.Linear's initialisation, U(-1/sqrt(d_in), 1/sqrt(d_in))."""
    linear = Linear(d_in, d_out, bias=True, rngs=rngs)
    bound = d_in**-0.5
    linear.kernel[...] = jax.random.uniform(rngs.params(), (d_in, d_out), minval=-bound, maxval=bound)
    linear.bias = nnx.Param(jax.random.uniform(rngs.params(), (d_out,), minval=-bound, maxval=bound))
    return linear


def xavier_linear(d_in: int, d_out: int, fan_out: int, *, rngs: nnx.Rngs) -> Linear:
    """torch.nn.MultiheadAttention's initialisation: Xavier-uniform with `fan_out`, bias zero."""
    linear = Linear(d_in, d_out, bias=True, rngs=rngs)
    bound = (6 / (d_in + fan_out)) ** 0.5
    linear.kernel[...] = jax.random.uniform(rngs.params(), (d_in, d_out), minval=-bound, maxval=bound)
    return linear


class PaperHead(nnx.Module):
    """The published head: self-attention over the last hidden states, position 0, three normed layers.

    A causal model's first state does not depend on what follows, so position 0 is a constant query and this is
    attention pooling; only that query is computed. Padding is masked, which the published code does not do.

    Args:
        hidden_size: of the language model; must divide by the 8 attention heads.
        classes: number of emotions.
    """

    heads = 8

    def __init__(self, hidden_size: int, classes: int, *, rngs: nnx.Rngs):
        h = hidden_size
        self.q_proj = xavier_linear(h, h, 3 * h, rngs=rngs)
        self.k_proj = xavier_linear(h, h, 3 * h, rngs=rngs)
        self.v_proj = xavier_linear(h, h, 3 * h, rngs=rngs)
        self.out_proj = torch_linear(h, h, rngs=rngs)
        self.out_proj.bias = nnx.Param(jnp.zeros(h))
        self.norm1 = LayerNorm(h)
        self.linear1 = torch_linear(h, h, rngs=rngs)
        self.norm2 = LayerNorm(h)
        self.linear2 = torch_linear(h, h // 2, rngs=rngs)
        self.norm3 = LayerNorm(h // 2)
        self.linear3 = torch_linear(h // 2, classes, rngs=rngs)

    def __call__(self, features: Features, key: jax.Array | None = None) -> jax.Array:
        """Logits [batch, classes], float32."""
        key1, key2 = split_key(key, 2)
        text = [x.astype(jnp.float32) for x in (features.prefix_ph[None], features.hidden_bth)]
        first = next(part for part in text if part.shape[1])[:, :1]
        x_bh = self.out_proj(self.attend([first], text, features.mask_bt)[:, 0])
        x_bh = x_bh + gelu(dropout(self.linear1(self.norm1(x_bh)), 0.15, key1))
        x_bg = gelu(dropout(self.linear2(self.norm2(x_bh)), 0.1, key2))
        return self.linear3(self.norm3(x_bg))

    def attend(self, queries: Sequence[jax.Array], text: Sequence[jax.Array], mask_bt: jax.Array) -> jax.Array:
        """Attention, [batch, queries, hidden_size].

        Args:
            queries, text: parts that follow one another, [batch or 1, time, hidden_size]; one that all rows share is
                projected once.
            mask_bt: of the text's last part; the others are valid.
        """
        batch, own = mask_bt.shape

        def heads(project: Linear, parts: Sequence[jax.Array]) -> jax.Array:
            rows = [jnp.broadcast_to(x, (batch, *x.shape[1:])) for x in map(project, parts)]
            return jnp.concatenate(rows, axis=1).reshape(batch, -1, self.heads, rows[0].shape[-1] // self.heads)

        keys_bsnk = heads(self.k_proj, text)
        mask_bs = jnp.pad(mask_bt, ((0, 0), (keys_bsnk.shape[1] - own, 0)), constant_values=True)
        y_btnk = jax.nn.dot_product_attention(
            heads(self.q_proj, queries), keys_bsnk, heads(self.v_proj, text), mask=mask_bs[:, None, None, :]
        )
        return y_btnk.reshape(*y_btnk.shape[:2], -1)


class ReadoutHead(nnx.Module):
    """Linear readout of audio statistics and the last state, standardised on the training set.

    Up to two groups of inputs: mean and standard deviation over time of every audio layer (the middle layers hear
    emotion best, and layers complement each other), and the language model's state at the last token. Each group is
    divided by the square root of its size, so that neither drowns the other. The kernel starts at zero, every
    prediction uniform; `training.readout` fits it.

    Args:
        audio_size: audio layers x 2 d_model.
        hidden_size: of the language model, 0 where its state is not read.
        classes: number of emotions.
    """

    dropout = 0.5

    def __init__(self, audio_size: int, hidden_size: int, classes: int, *, rngs: nnx.Rngs):
        size = audio_size + hidden_size
        self.linear = Linear(size, classes, bias=True, rngs=rngs)
        self.linear.kernel[...] = jnp.zeros((size, classes))
        self.mean = HeadStatistics(jnp.zeros(size))
        self.deviation = HeadStatistics(jnp.ones(size))
        self.sizes = (audio_size, hidden_size)

    @property
    def scale_e(self) -> jax.Array:
        """What each standardised input is multiplied by."""
        return jnp.concatenate([jnp.full(size, size**-0.5) for size in self.sizes if size])

    def inputs(self, features: Features) -> jax.Array:
        """float32 [batch, audio_size + hidden_size], before standardising."""
        audio_be = jnp.moveaxis(features.audio_lbe, 0, 1).reshape(features.audio_lbe.shape[1], -1)
        if not self.sizes[1]:
            return audio_be
        last_b = features.mask_bt.sum(axis=1) - 1
        last_bh = jnp.take_along_axis(features.hidden_bth, last_b[:, None, None], axis=1)[:, 0]
        return jnp.concatenate([audio_be, last_bh.astype(jnp.float32)], axis=1)

    def __call__(self, features: Features, key: jax.Array | None = None) -> jax.Array:
        """Logits [batch, classes], float32."""
        return self.logits(self.inputs(features), key)

    def logits(self, inputs_be: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Logits of what `inputs` gives."""
        x_be = (inputs_be - self.mean[...]) / self.deviation[...]
        return self.linear(dropout(x_be * self.scale_e, self.dropout, key))
