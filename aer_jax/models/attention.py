"""Attention of both towers, by the kernel that suits device and shapes.

XLA writes the scores of all heads, [batch, heads, queries, keys], to the chip's memory. Long sequences use a block-wise
kernel instead, whose scores live in fast memory alone: on TPUs Pallas' splash attention, for any mask; on a GPU cuDNN's
fused attention, for audio and for causal text. docs/results/speed_gpu.md has what they save.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from aer_jax.models.sharding import BATCH, row_blocks

# Queries from which on a kernel serves. With fewer than 500, 10 s of audio, XLA keeps much of the scores in a TPU's
# fast memory, too; on a GPU it writes them, however few.
LONG = {"tpu": 500, "gpu": 64}
BLOCK = 512  # queries or keys of a splash block, at most
LANES = 128  # of which a block must be a multiple


class Pattern(NamedTuple):
    """Which keys a query may attend to, the same for all rows; evaluated from positions, never stored.

    Attributes:
        before: causal: query t attends to no key behind `before + t`.
        group_s: int [keys], of each key, where queries are the last of the keys: besides the keys of group -1 a query
            attends only to those of its own group. None: there is one group.
    """

    before: int = 0
    group_s: np.ndarray | None = None

    def allows(self, queries: int, keys: int, xp: Any = jnp) -> jax.Array:
        """Bool [queries, keys], which the program computes: stored in it, it would take the square of a prompt.

        Args:
            queries, keys: how many.
            xp: jax.numpy, or numpy for an array that no program computes.
        """
        key_s = xp.arange(keys)
        allowed_ts = key_s <= (xp.arange(queries) + self.before)[:, None]
        if self.group_s is None:
            return allowed_ts
        group_s = xp.asarray(self.group_s)
        return allowed_ts & ((group_s == -1) | (group_s == group_s[keys - queries :, None]))


class Mask(NamedTuple):
    """Which keys a query attends to: those that are valid, and of them what the pattern allows.

    Attributes:
        keys_bs: bool [batch or 1, keys], the valid ones; without a pattern they come first. None: all are.
        pattern: None allows all.
    """

    keys_bs: jax.Array | None
    pattern: Pattern | None = None

    @property
    def causal(self) -> bool:
        """Whether the order of the keys alone says which are attended to."""
        return self.keys_bs is None and self.pattern is not None and self.pattern.group_s is None


def attention(q_btnh: jax.Array, k_bsgh: jax.Array, v_bsgh: jax.Array, mask: Mask) -> jax.Array:
    """Scaled dot-product attention, [batch, queries, heads, head_dim].

    Args:
        q_btnh: queries.
        k_bsgh, v_bsgh: keys and values; as many heads, or a divisor of them, each shared by neighbouring query heads.
        mask: a query that it leaves without any key gets finite values that mean nothing.
    """
    kernel = kernel_for(q_btnh, k_bsgh, mask)
    keys_bs = jnp.ones((1, k_bsgh.shape[1]), bool) if mask.keys_bs is None else mask.keys_bs
    if kernel is None:
        mask_bnts = keys_bs[:, None, None, :]
        if mask.pattern is not None:
            mask_bnts = mask_bnts & mask.pattern.allows(q_btnh.shape[1], k_bsgh.shape[1])
        return jax.nn.dot_product_attention(q_btnh, k_bsgh, v_bsgh, mask=mask_bnts)
    keys_bs = jnp.broadcast_to(keys_bs, k_bsgh.shape[:2])
    heads = P(*BATCH, None, "tensor", None)
    # A kernel knows no mesh: each device computes its own rows and heads.
    own = jax.shard_map(
        functools.partial(kernel, mask.pattern),
        in_specs=(heads, heads, heads, BATCH),
        out_specs=heads,
        check_vma=False,  # neither kernel says along which axes its results vary
    )
    return own(q_btnh, k_bsgh, v_bsgh, keys_bs)


def kernel_for(q_btnh: jax.Array, k_bsgh: jax.Array, mask: Mask) -> Callable[..., jax.Array] | None:
    """The fused kernel for one device's share in bfloat16, or None where there is none or too few queries.

    Splash attention needs a mesh that divides rows and heads. cuDNN's was only ever run on one GPU, and serves there
    alone; a pattern that is not causal would be a bias, written with all its gradients. The platform is the mesh's, not
    the host's: a plan is compiled for chips that are not there. Matrix products more precise than the default do not
    compile inside splash attention, and cuDNN does not know of them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.abstract_device is None:
        return None
    batch, queries, _, head_dim = q_btnh.shape
    platform = mesh.abstract_device.platform
    precise = jax.config.values["jax_default_matmul_precision"] not in (None, "default")
    if platform not in LONG or q_btnh.dtype != jnp.bfloat16 or precise or head_dim % (LANES // 2):
        return None
    if queries < LONG[platform]:
        return None
    match platform:
        case "tpu" if batch % row_blocks(mesh) == 0 and k_bsgh.shape[2] % mesh.shape["tensor"] == 0:
            return _splash
        case "gpu" if mesh.size == 1 and (mask.pattern is None or mask.causal) and head_dim <= LANES:
            return _cudnn
        case _:
            return None


def _cudnn(pattern: Pattern | None, q_btnh, k_bsgh, v_bsgh, keys_bs) -> jax.Array:
    """Audio, without a pattern, and causal text; lengths padded to even ones, which cuDNN's gradients want.

    Audio is given as its number of valid keys, at least one. Causal queries and keys start together, so queries that
    stand behind other keys are given as many before them, whose values are cut off again.
    """
    queries = q_btnh.shape[1]
    before = 0 if pattern is None else pattern.before

    def even(x_btnh, before: int = 0) -> jax.Array:
        return jnp.pad(x_btnh, ((0, 0), (before, (before + x_btnh.shape[1]) % 2), (0, 0), (0, 0)))

    fused = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    if pattern is None:
        lengths_b = jnp.maximum(keys_bs.sum(axis=1, dtype=jnp.int32), 1)
        y_btnh = fused(even(q_btnh), even(k_bsgh), even(v_bsgh), key_value_seq_lengths=lengths_b)
    else:
        y_btnh = fused(even(q_btnh, before), even(k_bsgh), even(v_bsgh), is_causal=True)
    return y_btnh[:, before : before + queries]


def _splash(pattern: Pattern | None, q_btnh, k_bsgh, v_bsgh, keys_bs) -> jax.Array:
    """Padded to whole blocks: queries that are cut off again, and keys of a segment that no query is of."""
    # Imported here: experimental, and of no use where there are no TPUs.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    queries, heads, head_dim = q_btnh.shape[1:]
    keys = keys_bs.shape[1]
    block_t, block_s = _block(queries), _block(keys)
    more_t, more_s = -queries % block_t, -keys % block_s

    shape = (queries + more_t, keys + more_s)
    allowed: splash.FullMask | splash.CausalMask | splash.NumpyMask
    if pattern is None:
        allowed = splash.FullMask(shape)
    elif pattern.group_s is None:
        allowed = splash.CausalMask(shape, pattern.before)
    else:
        allowed_ts = pattern.allows(queries, keys, np)
        allowed = splash.NumpyMask(np.pad(allowed_ts, ((0, more_t), (0, more_s)), constant_values=True))
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([allowed] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block_t, block_q_dq=block_t, block_q_dkv=block_t,
            block_kv=block_s, block_kv_dq=block_s, block_kv_dkv=block_s,
            block_kv_compute=block_s, block_kv_dkv_compute=block_s,
        ),
        head_shards=1,
        q_seq_shards=1,
    )  # fmt: skip

    def padded(x_bsnh, more: int) -> jax.Array:
        return jnp.pad(x_bsnh, ((0, 0), (0, more), (0, 0), (0, 0))).swapaxes(1, 2)

    segments = splash.SegmentIds(
        q=jnp.ones((q_btnh.shape[0], queries + more_t), jnp.int32),
        kv=jnp.pad(keys_bs, ((0, 0), (0, more_s))).astype(jnp.int32),
    )
    scaled_btnh = q_btnh * jnp.asarray(head_dim**-0.5, q_btnh.dtype)
    y_bnth = jax.vmap(kernel)(padded(scaled_btnh, more_t), padded(k_bsgh, more_s), padded(v_bsgh, more_s), segments)
    return y_bnth.swapaxes(1, 2)[:, :queries]


def _block(length: int) -> int:
    """The multiple of LANES, at most BLOCK, that fewest blocks of cover a length with least padding."""
    blocks = -(-length // BLOCK)
    return -(-length // (blocks * LANES)) * LANES
