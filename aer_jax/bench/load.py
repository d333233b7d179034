"""Time from checkpoint files to sharded arrays, by part, and peak host memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aer_jax.base.config import read_config
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.bench.measure import memory_bytes, reset_peak
from aer_jax.config import MeshConfig, ModelConfig
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.sharding import make_mesh, sharding
from aer_jax.models.weights import Parameter, base_parameters, check_fit, load_parameter


def bench_load(model: ModelConfig, mesh: MeshConfig) -> dict[str, Any]:
    """Load the base of `model.checkpoint` in `model.dtype` onto `mesh`, and time it.

    Returns:
        steps: [{step, bytes, seconds}], bytes as they lie in the files.
        devices: how many; array_bytes: of the loaded arrays over all devices of this process.
        host_bytes: peak resident memory of this process beyond what it held before, the arrays themselves taken off
            where they lie in host memory too (on CPU devices).
    """
    devices = make_mesh(mesh)
    before = memory_bytes("VmRSS")
    reset_peak()
    steps: list[dict[str, Any]] = []

    @contextmanager
    def step(name: str, size: int = 0) -> Iterator[None]:
        start = time.perf_counter()
        yield
        steps.append({"step": name, "bytes": size, "seconds": time.perf_counter() - start})

    with step("shapes of the model"):
        config = read_config(model.checkpoint)
        base = nnx.eval_shape(lambda: Qwen2Audio(config, rngs=nnx.Rngs(0)))
    with step("headers of the files"):
        checkpoint = Checkpoint(model.checkpoint)
        check_fit(base, checkpoint)
    parts: dict[str, list[Parameter]] = {}
    for parameter in base_parameters(base):
        parts.setdefault(_part(parameter), []).append(parameter)
    arrays = 0
    for name, parameters in parts.items():
        with step(name, sum(parameter.nbytes(checkpoint) for parameter in parameters)):
            for parameter in parameters:
                array = load_parameter(
                    parameter, checkpoint, lambda path, shape: sharding(devices, path, shape), jnp.dtype(model.dtype)
                )
                parameter.variable.set_value(array.block_until_ready())
                arrays += sum(shard.data.nbytes for shard in array.addressable_shards)
    on_host = arrays if jax.default_backend() == "cpu" else 0
    return {
        "bench": "load",
        "checkpoint": str(Path(model.checkpoint)),
        "devices": devices.size,
        "steps": steps,
        "array_bytes": arrays,
        "host_bytes": memory_bytes() - before - on_host,
    }


def _part(parameter: Parameter) -> str:
    first, second, *_ = map(str, parameter.path)
    return f"{first}.{second}" if first == "language_model" else first


def table(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of what `bench_load` returned."""
    total = {name: sum(step[name] for step in result["steps"]) for name in ("bytes", "seconds")}
    rows = [
        {
            "step": step["step"],
            "GB": f"{step['bytes'] / 1e9:.2f}",
            "seconds": f"{step['seconds']:.2f}",
            "GB/s": f"{step['bytes'] / 1e9 / step['seconds']:.2f}" if step["bytes"] else "",
        }
        for step in [*result["steps"], {"step": "all", **total}]
    ]
    note = (
        f"{result['devices']} device(s) hold {result['array_bytes'] / 1e9:.2f} GB; beyond that this process held "
        f"{result['host_bytes'] / 1e9:.2f} GB at most"
    )
    return rows, note
