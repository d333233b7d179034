"""How long a checkpoint takes from files to sharded arrays, by part, and what the host holds on the way."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aer_jax.base.config import read_config
from aer_jax.base.safetensors_files import Checkpoint
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
    before = resident()
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
                    parameter,
                    checkpoint,
                    lambda path, shape: sharding(devices, path, shape),
                    jnp.dtype(model.dtype),
                )
                parameter.variable.set_value(array.block_until_ready())
                arrays += sum(shard.data.nbytes for shard in array.addressable_shards)
    on_host = arrays if jax.default_backend() == "cpu" else 0
    return {
        "checkpoint": str(Path(model.checkpoint)),
        "devices": devices.size,
        "steps": steps,
        "array_bytes": arrays,
        "host_bytes": peak_resident() - before - on_host,
    }


def table(result: dict[str, Any]) -> str:
    """What `bench_load` returned, for people."""
    rows = [*result["steps"], {"step": "all", **_total(result["steps"])}]
    lines = [f"{'step':<32}{'GB':>8}{'seconds':>10}{'GB/s':>8}"]
    for row in rows:
        size, seconds = row["bytes"] / 1e9, row["seconds"]
        lines.append(
            f"{row['step']:<32}{size:>8.2f}{seconds:>10.2f}" + (f"{size / seconds:>8.2f}" if size else "").rstrip()
        )
    return "\n".join(
        [
            *lines,
            f"{result['devices']} device(s) hold {result['array_bytes'] / 1e9:.2f} GB; "
            f"beyond that this process held {result['host_bytes'] / 1e9:.2f} GB at most",
        ]
    )


def _total(steps: list[dict[str, Any]]) -> dict[str, float]:
    return {key: sum(step[key] for step in steps) for key in ("bytes", "seconds")}


def _part(parameter: Parameter) -> str:
    """audio_tower, multi_modal_projector, language_model.embed_tokens, language_model.layers, ..."""
    first, second, *_ = map(str, parameter.path)
    return f"{first}.{second}" if first == "language_model" else first


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_resident() -> int:
    """The most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
