"""Splash attention equals XLA's for every mask of ours, serves where it is said to, and compiles for TPUs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from aer_jax.config import MeshConfig
from aer_jax.models.attention import LONG, Mask, attention, has_kernel
from aer_jax.models.sharding import AXES, make_mesh
from aer_jax.scale.ahead_of_time import devices_of
from aer_jax.scale.chips import parse_slice


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


def served(
    platform: str | None = "tpu",
    *,
    mesh=(1, 4, 2),
    batch=8,
    queries=LONG,
    dim=64,
    heads=4,
    dtype="bfloat16",
    precision="default",
) -> bool:
    device = AbstractDevice("a chip", 1, platform) if platform else None
    q, k = (jax.ShapeDtypeStruct((batch, queries, n, dim), jnp.dtype(dtype)) for n in (8, heads))
    mesh = AbstractMesh(mesh, AXES, abstract_device=device)
    none = jax.sharding.AbstractMesh((), ())  # instead of one that another test has set
    with (
        jax.sharding.use_abstract_mesh(none),
        jax.sharding.use_abstract_mesh(mesh),
        jax.default_matmul_precision(precision),
    ):
        return has_kernel(q, k)


def test_where_the_kernel_serves():
    assert served() and served(mesh=(2, 1, 4), dim=128)
    assert not served("cpu") and not served("cuda") and not served(None)
    assert not served(dtype="float32") and not served(precision="highest")
    assert not served(queries=LONG - 1)
    assert not served(dim=32)
    assert not served(batch=1) and not served(batch=6)
    assert not served(heads=1)
    assert not has_kernel(*[jnp.zeros((8, LONG, 8, 64), jnp.bfloat16)] * 2)


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
