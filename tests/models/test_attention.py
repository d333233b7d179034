"""The kernels equal XLA's attention, serve where they are said to, and compile for what they are for."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo  # what it asks of a GPU that is not here
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from aer_jax.chips import parse_slice
from aer_jax.config import MeshConfig, load_config
from aer_jax.models import attention as attention_module
from aer_jax.models.attention import Mask, Pattern, _cudnn, _splash, attention, kernel_for
from aer_jax.models.label_scores import _packed
from aer_jax.models.language_model import causal
from aer_jax.models.sharding import AXES, make_mesh
from aer_jax.plan.abstract_step import abstract_step, trace
from aer_jax.plan.compiler import compile_for, devices_of, has_compiler
from aer_jax.plan.shapes import BatchShape


def test_splash_attention_is_as_exact_as_xlas_for_every_mask():
    """Values and gradients on four devices, rows and heads divided, a head of keys shared by two or not."""
    script = Path(__file__).with_name("splash_errors.py")
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, errors in json.loads(done.stdout.splitlines()[-1]).items():
        for splash, xla in zip(errors["splash"], errors["xla"], strict=True):
            assert splash <= 1.5 * xla <= 0.01, name


GROUPS = Pattern(group_s=np.repeat([-1, 0], 250))


def served(
    platform: str | None = "tpu",
    *,
    mesh=(1, 4, 2),
    batch=8,
    queries=500,
    dim=64,
    heads=4,
    dtype="bfloat16",
    precision="default",
    pattern=None,
    padded=True,
):
    """The kernel for such shapes on such a mesh."""
    q, k = (jax.ShapeDtypeStruct((batch, queries, n, dim), jnp.dtype(dtype)) for n in (8, heads))
    valid = jax.ShapeDtypeStruct((batch, queries), jnp.bool_) if padded else None
    with on_mesh(platform, mesh), jax.default_matmul_precision(precision):
        return kernel_for(q, k, Mask(valid, pattern))


def abstract_mesh(platform: str | None, shape: tuple[int, int, int]) -> AbstractMesh:
    device = AbstractDevice("a chip", 1, platform) if platform else None
    return AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, abstract_device=device)


@contextmanager
def on_mesh(platform: str | None, shape: tuple[int, int, int]):
    none = AbstractMesh((), ())  # instead of one that another test has set
    with jax.sharding.use_abstract_mesh(none), jax.sharding.use_abstract_mesh(abstract_mesh(platform, shape)):
        yield


def test_where_splash_attention_serves():
    assert served() is _splash and served(mesh=(2, 1, 4), dim=128) is _splash
    assert served(pattern=GROUPS) is _splash and served(pattern=Pattern()) is _splash
    assert served("cpu") is None and served(None) is None
    assert served(dtype="float32") is None and served(precision="highest") is None
    assert served(queries=499) is None
    assert served(dim=32) is None
    assert served(batch=1) is None and served(batch=6) is None
    assert served(heads=1) is None
    x = jnp.zeros((8, 500, 8, 64), jnp.bfloat16)
    assert kernel_for(x, x, Mask(jnp.ones((8, 500), bool))) is None


def test_where_cudnns_attention_serves():
    one = (1, 1, 1)
    assert served("gpu", mesh=one) is _cudnn and served("gpu", mesh=one, batch=3, heads=1) is _cudnn
    assert served("gpu", mesh=(2, 1, 1)) is None and served("cpu", mesh=one) is None
    assert served("gpu", mesh=one, pattern=GROUPS) is None
    assert served("gpu", mesh=one, pattern=Pattern()) is None
    assert served("gpu", mesh=one, pattern=GROUPS, padded=False) is None
    assert served("gpu", mesh=one, pattern=Pattern(), padded=False) is _cudnn
    assert served("gpu", mesh=one, pattern=Pattern(73), padded=False) is _cudnn
    assert served("gpu", mesh=one, queries=64) is _cudnn and served("gpu", mesh=one, queries=63) is None
    assert served("gpu", mesh=one, dim=192) is None
    assert served("gpu", mesh=one, dtype="float32") is None


@pytest.mark.parametrize(
    ("pattern", "queries", "keys"),
    [(Pattern(), 5, 5), (Pattern(3), 5, 8), (Pattern(group_s=np.array([-1, -1, 0, 0, 1])), 5, 5)],
)
def test_what_a_pattern_allows(pattern, queries, keys):
    """Written out query by query."""
    expected = [
        [
            s <= t + pattern.before and (pattern.group_s is None or pattern.group_s[s] in (-1, pattern.group_s[t]))
            for s in range(keys)
        ]
        for t in range(queries)
    ]
    np.testing.assert_array_equal(pattern.allows(queries, keys), expected)


@pytest.mark.parametrize("make", [causal, lambda time: _packed(jnp.ones((1, time), bool), 4, 3)])
def test_no_mask_is_a_constant_of_the_program(make):
    """Stored, one of 6,000 tokens would be 36 MB in every program, and one of 100,000 words 155 GB."""
    time = 6_000
    mask = make(time)[1]
    keys = time if mask.pattern.group_s is None else mask.pattern.group_s.size
    x = jax.ShapeDtypeStruct((1, keys, 1, 2), jnp.float32)
    traced = jax.jit(lambda q: attention(q, q, q, mask).sum()).trace(x)
    constants = [np.asarray(value).nbytes for value in traced.jaxpr.consts]
    assert sum(constants) <= 8 * keys
    program = traced.lower().compile().as_text()
    stored = re.findall(r"\w+\[([\d,]+)\]\S* constant\(", program)
    assert max((math.prod(map(int, shape.split(","))) for shape in stored), default=0) <= keys


def test_on_a_gpu_the_tower_lowers_to_cudnns_attention_with_lengths():
    """Forward and backward; a mask as a bias would have its gradient computed, too."""
    x, keys = jax.ShapeDtypeStruct((4, 1500, 20, 64), jnp.bfloat16), jax.ShapeDtypeStruct((4, 1500), jnp.bool_)

    def loss(q, k, v, keys_bs):
        return attention(q, k, v, Mask(keys_bs)).astype(jnp.float32).mean()

    with (
        on_mesh("gpu", (1, 1, 1)),
        jax.default_matmul_precision("default"),
        mock.patch.object(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000),
    ):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(x, x, x, keys)
        lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("@__cudnn$fmhaSoftmax(") == lowered.count("@__cudnn$fmhaSoftmaxBackward(") == 1
    assert "tensor<4x20x1500x1500" not in lowered


@pytest.mark.parametrize(("precision", "forward", "backward"), [("default", 6, 3), ("highest", 0, 0)])
def test_on_a_gpu_a_whole_step_has_the_kernel_throughout(precision, forward, backward):
    """The published shapes: tower, prefix and rows, forward, once more where layers are computed again, and backward.

    That precise products leave it out is what `bench ablations` does, and a user whose cuDNN fails.
    """
    config = load_config(None, ["model.dtype=bfloat16", "model.remat=dots", "train.batch=16", "train.microbatch=8"])
    mesh = abstract_mesh("gpu", (1, 1, 1))
    step = abstract_step(config, mesh, BatchShape(samples=71_040, tokens=152, prefix=100), 4)
    with (
        jax.default_matmul_precision(precision),
        mock.patch.object(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000),
    ):
        program = str(trace(config, mesh, step).jaxpr)
    assert program.count("= dot_product_attention_fwd_wrapper") == forward
    assert program.count("= dot_product_attention_bwd_wrapper") == backward


@pytest.mark.parametrize(("queries", "before"), [(9, None), (10, None), (9, 0), (9, 3), (9, 4)])
def test_what_cudnn_is_given_means_the_same(queries, before):
    """XLA in cuDNN's place, for audio (no `before`) and for text: lengths or causality alone, and even lengths."""
    rng = np.random.default_rng(0)
    valid_bt = jnp.arange(queries) < jnp.array([queries, 3, 0])[:, None]
    mask = Mask(valid_bt) if before is None else causal(queries, before)[1]
    keys = queries + (before or 0)
    q, k, v = (jnp.asarray(rng.normal(size=(3, n, 2, 4)), jnp.float32) for n in (queries, keys, keys))
    xla = jax.nn.dot_product_attention

    def instead(*args, implementation, **kwargs):
        assert implementation == "cudnn" and all(x.shape[1] % 2 == 0 for x in args) and "mask" not in kwargs
        return xla(*args, **kwargs)

    with mock.patch.object(jax.nn, "dot_product_attention", instead):
        found = _cudnn(mask.pattern, q, k, v, valid_bt)
    expected = attention(q, k, v, mask)
    matter_bt = valid_bt | mask.causal | jnp.array([True, True, False])[:, None]
    np.testing.assert_allclose(found[matter_bt], expected[matter_bt], atol=1e-6)
    assert found.shape == q.shape and np.isfinite(found).all()


def audio_mask(states: int) -> tuple[Mask, jax.Array]:
    """Four windows and the queries that matter; one has a single valid key, one has none."""
    keys_bs = jnp.arange(states) < jnp.array([states, states // 3, 1, 0])[:, None]
    return Mask(keys_bs), jnp.broadcast_to(jnp.array([True, True, True, False])[:, None], keys_bs.shape)


def text_mask(prefix: int, time: int) -> tuple[Mask, jax.Array]:
    """Four causal texts behind a prefix and their valid queries."""
    own_bt = jnp.arange(time) < jnp.array([time, time // 3, 1, time - 1])[:, None]
    return causal(time, prefix)[1], own_bt


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU")
@pytest.mark.parametrize(
    ("mask", "matter_bt", "heads"),
    [
        pytest.param(*audio_mask(250), (20, 20, 64), id="audio of 5 s"),
        pytest.param(*audio_mask(1499), (20, 20, 64), id="audio of 30 s, odd"),
        pytest.param(*audio_mask(1500), (20, 20, 64), id="audio of 30 s"),
        pytest.param(*text_mask(0, 152), (32, 32, 128), id="text"),
        pytest.param(*text_mask(100, 153), (32, 32, 128), id="text behind a prefix, odd"),
        pytest.param(*text_mask(101, 816), (28, 4, 128), id="text behind a prefix, shared key heads"),
    ],
)
def test_cudnns_attention_is_as_exact_as_xlas(mask, matter_bt, heads):
    """Values and gradients, beside XLA's in float32."""
    rng = np.random.default_rng(0)
    query_heads, key_heads, dim = heads
    batch, queries = matter_bt.shape
    keys = queries + (mask.pattern.before if mask.pattern else 0)
    shapes = (batch, queries, query_heads, dim), *[(batch, keys, key_heads, dim)] * 2
    qkv = [jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in shapes]
    weight = jnp.asarray(rng.normal(size=shapes[0])) * matter_bt[..., None, None]

    def results(qkv, kernel):
        def run(*qkv):
            y, back = jax.vjp(lambda q, k, v: attention(q, k, v, mask), *qkv)
            return jnp.where(matter_bt[..., None, None], y, 0), *back(weight.astype(y.dtype)), jnp.isfinite(y).all()

        with (
            jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])),
            jax.default_matmul_precision("highest" if qkv[0].dtype == jnp.float32 else "default"),
            mock.patch.object(attention_module, "kernel_for", lambda *_: kernel),
        ):
            *found, finite = jax.jit(run)(*qkv)
        assert finite
        return [np.asarray(x, np.float32) for x in found]

    exact = results([x.astype(jnp.float32) for x in qkv], None)
    for ours, xla, truth in zip(results(qkv, _cudnn), results(qkv, None), exact, strict=True):
        found, usual = (np.linalg.norm(x - truth) / np.linalg.norm(truth) for x in (ours, xla))
        assert found <= max(1.5 * usual, 5e-3) and usual <= 0.01


@pytest.mark.skipif(not has_compiler(parse_slice("h100:1")), reason='no CUDA plugin; pip install "aer-jax[cuda]"')
@pytest.mark.parametrize(
    ("queries", "before", "heads", "dim"),
    [(1499, None, 20, 64), (1500, None, 20, 64), (816, 100, 32, 128)],
    ids=["audio, odd", "audio", "text behind a prefix"],
)
def test_compiled_for_a_gpu_it_writes_no_scores(queries, before, heads, dim):
    """30 s in the published model's heads, on a GPU that is not here."""
    topology = parse_slice("h100:1")
    mesh = make_mesh(MeshConfig(), devices_of(topology))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    keys = queries + (before or 0)
    q, k = (jax.ShapeDtypeStruct((4, n, heads, dim), jnp.bfloat16, sharding=whole) for n in (queries, keys))
    valid = jax.ShapeDtypeStruct((4, keys), jnp.bool_, sharding=whole)

    def loss(q, k, v, keys_bs):
        mask = Mask(keys_bs) if before is None else causal(queries, before)[1]
        return attention(q, k, v, mask).astype(jnp.float32).mean()

    def temporaries(kernel) -> float:
        with (
            jax.set_mesh(mesh),
            jax.default_matmul_precision("default"),
            mock.patch.object(attention_module, "kernel_for", lambda *_: kernel),
        ):
            traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k, valid)
        compiled = compile_for(traced, topology, held=0)
        assert compiled.program.count('"__cudnn$fmhaSoftmax') == (2 if kernel else 0), "forward and backward"
        return compiled.temporaries

    scores = 4 * heads * queries * keys * 2
    assert temporaries(_cudnn) < scores < temporaries(None)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason='no libtpu; pip install "aer-jax[plan]"')
def test_compiled_for_a_slice_it_writes_no_scores():
    """30 s in the published tower's heads: three kernels, forward, of queries, of keys and values; a mesh of four."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=4), devices_of(parse_slice("v5e:2x2")))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    x = jax.ShapeDtypeStruct((4, 1500, 20, 64), jnp.bfloat16, sharding=rows)
    keys = jax.ShapeDtypeStruct((4, 1500), jnp.bool_, sharding=rows)

    def loss(q, k, v, keys_bs):
        return attention(q, k, v, Mask(keys_bs)).astype(jnp.float32).mean()

    with jax.set_mesh(mesh), jax.default_matmul_precision("default"):
        traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(x, x, x, keys)
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    assert compiled.as_text().count("tpu_custom_call") == 3
    scores = 20 * 1500 * 1500 * 2
    assert compiled.memory_analysis().temp_size_in_bytes < scores
