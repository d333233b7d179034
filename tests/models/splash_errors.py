"""On four devices that Pallas interprets: errors of splash attention, and of XLA's, for each mask of ours, as JSON."""

import functools
import json
from unittest import mock

import jax
import jax.experimental.pallas.ops.tpu.splash_attention as splash
import jax.numpy as jnp
import numpy as np

from aer_jax.config import MeshConfig
from aer_jax.models import attention
from aer_jax.models.attention import Mask
from aer_jax.models.label_scores import _packed
from aer_jax.models.language_model import causal
from aer_jax.models.sharding import make_mesh

ROWS, HEADS, HEAD_DIM = 2, 4, 64
MESH = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2))


def valid(length: int, counts: tuple[int, int], side: str) -> jax.Array:
    mask_bt = np.arange(length) < np.array(counts)[:, None]
    return jnp.asarray(mask_bt if side == "right" else mask_bt[:, ::-1])


def cases():
    """Name, mask, queries whose values matter, key heads; all of more than one block, or of one with padding."""
    yield "audio tower", Mask(valid(600, (600, 77), "right")), jnp.ones((ROWS, 600), bool), 4
    own_bt = valid(560, (560, 300), "right")
    yield "text", causal(560)[1], own_bt, 4
    yield "text behind a prefix, shared key heads", causal(560, 73)[1], own_bt, 2
    for side in ("right", "left"):
        prompts = valid(500, (500, 411), side)
        matter = jnp.pad(prompts, ((0, 0), (0, 15)), constant_values=True)
        yield f"labels packed behind prompts padded on the {side}", _packed(prompts, 5, 3)[1], matter, 4


def results(mask: Mask, matter_bt: jax.Array, qkv) -> list[np.ndarray]:
    """Values, and gradients of queries, keys and values; what does not matter hands no gradient back."""
    weight_btnh = jnp.asarray(np.random.default_rng(1).normal(size=qkv[0].shape)) * matter_bt[..., None, None]

    def run(*qkv):
        y, back = jax.vjp(lambda q, k, v: attention.attention(q, k, v, mask), *qkv)
        return y * matter_bt[..., None, None], *back(weight_btnh.astype(y.dtype))

    with jax.set_mesh(MESH):
        return [np.asarray(x, np.float32) for x in jax.jit(run)(*qkv)]


def errors(mask: Mask, matter_bt: jax.Array, key_heads: int) -> dict[str, list[float]]:
    """Relative to XLA's float32, of splash attention and of XLA's attention in bfloat16."""
    queries = matter_bt.shape[1]
    keys = queries + (mask.pattern.before if mask.pattern else 0)
    rng = np.random.default_rng(0)
    shapes = (ROWS, queries, HEADS, HEAD_DIM), *[(ROWS, keys, key_heads, HEAD_DIM)] * 2
    qkv = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]
    exact = results(mask, matter_bt, [x.astype(jnp.float32) for x in qkv])
    found = {"xla": results(mask, matter_bt, qkv)}
    with mock.patch.object(attention, "kernel_for", lambda *_: attention._splash):
        found["splash"] = results(mask, matter_bt, qkv)
    return {
        name: [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(made, exact, strict=True)]
        for name, made in found.items()
    }


interpreted = functools.partial(splash.make_splash_mha, interpret=True)
with mock.patch.object(splash, "make_splash_mha", interpreted):
    print(json.dumps({name: errors(*case) for name, *case in cases()}))
