"""Programs compiled for fake devices, in a process of its own that `bench_curves` starts; nothing runs.

Each further line is one point: a training step's `seconds`, `rows` a microbatch, `data` and `fsdp`, or the exact
proxies' `seconds`, `rows`, `labels` and `personas`. The answer is what the program costs each device: `flops`, and of
its memory the bytes `held` (weights, optimizer, batch) and `working` (whatever else lives meanwhile).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from aer_jax.config import Config, MeshConfig, load_config
from aer_jax.models.label_scores import label_log_probs
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.sharding import make_mesh
from aer_jax.scale.abstract_step import abstract_step, base_config, trace
from aer_jax.scale.plan_shapes import BatchShape, work_of
from aer_jax.scale.program_flops import program_flops
from aer_jax.scale.side import serve

PROMPT, PREFIX = 60, 100  # tokens of a clip's own beside the audio's, and what all training prompts begin with
LABEL = 3  # tokens of a label, the one that ends the answer included


def step(config: Config, seconds: float, rows: int, data: int, fsdp: int) -> jax.stages.Compiled:
    """The training step of one microbatch."""
    train = dataclasses.replace(config.train, batch=rows, microbatch=rows)
    config = dataclasses.replace(config, train=train, mesh=MeshConfig(data, fsdp, 1))
    mesh = make_mesh(config.mesh, jax.devices()[: data * fsdp])
    work = work_of(config, seconds, PROMPT, PREFIX)
    return trace(config, mesh, abstract_step(config, mesh, work.shapes[-1], work.classes)).lower().compile()


def proxies(config: Config, seconds: float, rows: int, labels: int, personas: int) -> jax.stages.Compiled:
    """The likelihoods of all labels under each persona, on one device."""
    base = base_config(config.model.checkpoint)
    shape: BatchShape = work_of(config, seconds, PROMPT + PREFIX, 0).shapes[-1]
    model = nnx.split(nnx.eval_shape(lambda: Qwen2Audio(base, output_layer=True, rngs=nnx.Rngs(0))))
    arrays = {
        "audio_bs": ((rows, shape.samples), jnp.float32),
        "samples_b": ((rows,), jnp.int32),
        "tokens_bpt": ((rows, personas, shape.tokens), jnp.int32),
        "mask_bpt": ((rows, personas, shape.tokens), jnp.bool_),
        "labels_ln": ((labels, LABEL), jnp.int32),
        "label_mask_ln": ((labels, LABEL), jnp.bool_),
    }
    abstract = {name: jax.ShapeDtypeStruct(*array) for name, array in arrays.items()}
    scores = jax.jit(lambda state, arrays: label_log_probs(nnx.merge(model[0], state), **arrays))
    return scores.lower(model[1], abstract).compile()


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    config = load_config(job["config"])

    def answer(point: dict[str, Any]) -> dict[str, int]:
        compiled = (proxies if "labels" in point else step)(config, **point)
        program, memory = compiled.as_text(), compiled.memory_analysis()
        assert program is not None and memory is not None, "XLA's compiler for CPUs gives both"
        return {
            "flops": program_flops(program),
            "held": memory.argument_size_in_bytes,
            "working": memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes,
        }

    return {"versions": {"jax": jax.__version__}}, answer


if __name__ == "__main__":
    serve(start)
