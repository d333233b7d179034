"""Plan of a run on an absent slice: memory and time of the real step, compiled for its chips."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from tqdm import tqdm

from aer_jax.base.lengths import HOP, SAMPLE_RATE
from aer_jax.chips import Slice, parse_slice
from aer_jax.config import Config, MeshConfig, Remat
from aer_jax.models.flops import count_flops, model_flops
from aer_jax.models.remat import REMAT
from aer_jax.models.sharding import make_mesh
from aer_jax.plan.abstract_step import abstract_step, base_config, chip_bytes, trace
from aer_jax.plan.collectives import Collective, collectives
from aer_jax.plan.compiler import Compiled, compile_for, compiler_for, devices_of, has_compiler
from aer_jax.plan.estimate import Estimate, abstract_mesh, estimate, repeated_prefix_flops
from aer_jax.plan.mesh_search import advice, candidates, change, choose_mesh, fitting, mesh_settings, pareto
from aer_jax.plan.roofline import EFFICIENCY, memory_traffic, step_seconds
from aer_jax.plan.shapes import BatchShape, Work, work_of

UTTERANCES = 100_000  # that hours are quoted for where no dataset is named
SWEPT = 4  # candidates of a sweep that are compiled


def plan(
    config: Config, topology: str, *, seconds: float | None = None, prompt: int = 60, prefix: int = 100
) -> dict[str, Any]:
    """Plan a run on a slice.

    Args:
        config: the run's settings; model.checkpoint and data.dataset may be left open, see `base_config`, `work_of`.
        topology: for instance v5e:4x4, h100:8.
        seconds, prompt, prefix: see `work_of`.

    Returns:
        what `text.text` prints, for JSON; bytes are of one chip unless they say otherwise.

    Raises:
        UserError: the slice, the settings or what they name is not right, in one sentence.
    """
    chips = parse_slice(topology)
    work = work_of(config, seconds, prompt, prefix)
    remat = config.model.remat
    config, chosen = choose_mesh(config, chips, work, {remat: step_flops(config, work, remat)})
    if has_compiler(chips):
        tqdm.write(f"compiling the step for {chips}; a 7B takes half a minute to six", file=sys.stderr)
    return plan_mesh(config, chips, work, chosen)


def sweep(
    config: Config, topology: str, *, seconds: float | None = None, prompt: int = 60, prefix: int = 100
) -> list[dict[str, Any]]:
    """Plans on the Pareto front over time and memory, by arithmetic; arguments as for `plan`.

    Every mesh that keeps heads whole, every microbatch and remat policy is estimated; of the front, the quickest few
    that fit are compiled.
    """
    chips = parse_slice(topology)
    work = work_of(config, seconds, prompt, prefix)
    tried = candidates(config, chips, work, {remat: step_flops(config, work, remat) for remat in REMAT})
    front = pareto(fitting(tried, chips) or tried)[:SWEPT]
    title = f"compile {len(front)} of {len(tried)} candidates for {chips}"
    shown = tqdm(front, title, unit="program") if has_compiler(chips) else front
    plans = [plan_mesh(candidate.config, chips, work, chosen=True) for candidate in shown]
    return sorted(plans, key=lambda plan: plan["seconds"]["step"])


def step_flops(config: Config, work: Work, remat: Remat, shape: BatchShape | None = None) -> int:
    """Operations of one step of all chips together, recomputation included; no mesh changes them."""
    whole = change(config, remat=remat, microbatch=config.train.batch)
    mesh = abstract_mesh(MeshConfig(1, 1, 1))
    return count_flops(trace(whole, mesh, abstract_step(whole, mesh, shape or work.shapes[-1], work.classes)).jaxpr)


def plan_mesh(config: Config, chips: Slice, work: Work, chosen: bool) -> dict[str, Any]:
    """The plan of settings that suit the slice, compiled where its compiler is installed."""
    needs = estimate(config, work.shapes[-1], work.classes)
    compiled, sent = _compile(config, chips, work) if has_compiler(chips) else (None, None)
    memory = _memory(needs, compiled)
    peak, hbm = sum(memory.values()), chips.chip.hbm
    wire = needs.wire if sent is None else sum(row.wire for row in sent)
    result = {
        "topology": str(chips),
        "chips": chips.chips,
        "model": config.model.checkpoint or "Qwen2-Audio-7B, its published shapes",
        "settings": mesh_settings(config),
        "chosen": chosen,
        "batch": config.train.batch,
        "rows_per_chip": config.train.microbatch // (config.mesh.data * config.mesh.fsdp),
        "by": compiler_for(chips).name if compiled else "arithmetic",
        "note": _note(chips, compiled),
        "memory": memory,
        "peak_hbm_bytes_per_chip": int(peak),
        "hbm_bytes_per_chip": int(hbm),
        "spare": round(1 - peak / hbm, 4),
        "fits": peak <= hbm,
        "hbm_traffic_bytes_per_chip": int(memory_traffic(chips, config, needs)),
        "collectives": [dataclasses.asdict(row) for row in sent] if sent is not None else None,
        "wire_bytes_per_chip": wire,
        "compiler": {"seconds": round(compiled.seconds, 1)} if compiled else None,
        "assumed_efficiency": EFFICIENCY,
        **_speed(config, chips, work, wire / needs.wire if needs.wire else 0.0),
    }
    policies: tuple[Remat, ...] = () if result["fits"] else ("full", config.model.remat)
    flops = {remat: step_flops(config, work, remat) for remat in policies}
    return result | {"advice": [] if result["fits"] else advice(config, chips, work, flops)}


def _compile(config: Config, chips: Slice, work: Work) -> tuple[Compiled, list[Collective] | None]:
    mesh = make_mesh(config.mesh, devices_of(chips))
    step = abstract_step(config, mesh, work.shapes[-1], work.classes)
    compiled = compile_for(trace(config, mesh, step), chips, held=chip_bytes(step))
    return compiled, collectives(compiled.program, chips.chips) if compiled.program else None


def _memory(needs: Estimate, compiled: Compiled | None) -> dict[str, int]:
    held = {
        "weights": needs.weights,
        "trainables": needs.trainables,
        "optimizer": needs.optimizer,
        "batch": needs.inputs,
    }
    if compiled is None:
        return held | {"temporaries": needs.temporaries}
    free = compiled.peak - sum(held.values())
    temporaries = free if compiled.temporaries is None else compiled.temporaries
    return held | {"temporaries": int(temporaries), "program_and_padding": int(max(0, free - temporaries))}


def _speed(config: Config, chips: Slice, work: Work, wire_scale: float) -> dict[str, Any]:
    """Each shape's operations and times, and the means over an epoch's batches.

    What is sent is the compiled largest shape's, scaled by arithmetic.
    """
    shapes = [_shape(config, chips, work, shape, wire_scale) for shape in work.shapes]
    batches = sum(shape["batches"] for shape in shapes)

    def mean(values: list[float]) -> float:
        return sum(shape["batches"] * value for shape, value in zip(shapes, values, strict=True)) / batches

    seconds = {name: mean([shape["seconds"][name] for shape in shapes]) for name in shapes[0]["seconds"]}
    rate = config.train.batch / seconds["step"]
    flops_4n = mean([shape["flops_4n"] for shape in shapes])
    hours_for, visits = f"{UTTERANCES:,} utterances", UTTERANCES
    if work.utterances is not None:
        hours_for = f"{config.train.epochs} epochs of {work.utterances:,} utterances, unless it stops early"
        visits = work.utterances * config.train.epochs
    return {
        "shapes": shapes,
        "seconds": seconds,
        "utterances_per_second": rate,
        "mfu_4n": flops_4n / seconds["step"] / chips.chips / chips.chip.flops,
        "hours": visits / rate / 3600,
        "hours_for": hours_for,
    }


def _shape(config: Config, chips: Slice, work: Work, shape: BatchShape, wire_scale: float) -> dict[str, Any]:
    base, batch, remat = base_config(config.model.checkpoint), config.train.batch, config.model.remat
    flops = step_flops(config, work, remat, shape) + repeated_prefix_flops(config, shape, remat)
    prefixes = batch // config.train.microbatch * model_flops(base, 0, shape.prefix)
    return {
        "seconds_of_audio": shape.samples / SAMPLE_RATE,
        "tokens": shape.tokens,
        "prefix_tokens": shape.prefix,
        "batches": shape.batches,
        "flops": flops,
        "flops_4n": batch * model_flops(base, shape.samples // HOP, shape.tokens) + prefixes,
        "seconds": step_seconds(config, chips, estimate(config, shape, work.classes), flops, wire_scale),
    }


def _note(chips: Slice, compiled: Compiled | None) -> str:
    if compiled is None:
        return f"all numbers are by arithmetic: {compiler_for(chips).missing}"
    if not compiled.program:
        return "the compiler says that the step does not fit; collectives are by arithmetic"
    if not chips.is_tpu:
        return (
            "what cuDNN, NCCL and the driver keep for themselves comes on top, and JAX takes three quarters of a GPU's "
            "memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise, as launch/gpu.sh does"
        )
    return ""
