"""Whether a run fits a slice that is not here, and how long it would take: the real step, compiled for its chips."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from aer_jax.base.lengths import HOP, SAMPLE_RATE
from aer_jax.chips import Slice, parse_slice
from aer_jax.config import Config, Remat
from aer_jax.models.flops import count_flops, model_flops
from aer_jax.models.remat import REMAT
from aer_jax.models.sharding import make_mesh
from aer_jax.plan.abstract_step import abstract_step, base_config, chip_bytes, trace
from aer_jax.plan.aot_compile import Compiled, compile_for, devices_of
from aer_jax.plan.collectives import Collective, collectives
from aer_jax.plan.compilers import compiler_for, has_compiler
from aer_jax.plan.estimate import (
    EFFICIENCY,
    Estimate,
    abstract_mesh,
    estimate,
    fused_attention,
    moved,
    prefix_again,
    roofline,
)
from aer_jax.plan.mesh_search import Candidate, candidates, change, fitting, pareto, settled
from aer_jax.plan.shapes import BatchShape, Work, work_of

PER = 100_000  # utterances that hours are quoted for where no dataset is named
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
        what `plan_text.text` prints, for JSON; bytes are of one chip unless they say otherwise.

    Raises:
        UserError: the slice, the settings or what they name is not right, in one sentence.
    """
    chips = parse_slice(topology)
    work = work_of(config, seconds, prompt, prefix)
    remat = config.model.remat
    config, chosen = settled(config, chips, work, {remat: step_flops(config, work, remat)})
    if has_compiler(chips):
        tqdm.write(f"compiling the step for {chips}; a 7B takes half a minute to six", file=sys.stderr)
    return _planned(config, chips, work, chosen)


def sweep(
    config: Config, topology: str, *, seconds: float | None = None, prompt: int = 60, prefix: int = 100
) -> list[dict[str, Any]]:
    """Plans of the settings than which, by arithmetic, no other is both quicker and leaner; arguments as for `plan`.

    Every mesh that keeps heads whole, every microbatch and remat policy is estimated; of the front, the quickest few
    that fit are compiled.
    """
    chips = parse_slice(topology)
    work = work_of(config, seconds, prompt, prefix)
    flops = {remat: step_flops(config, work, remat) for remat in REMAT}
    found = candidates(config, chips, work, flops)
    front = pareto(fitting(found, chips) or found)[:SWEPT]
    what = f"compile {len(front)} of {len(found)} candidates for {chips}"
    shown = tqdm(front, what, unit="program") if has_compiler(chips) else front
    plans = [_planned(candidate.config, chips, work, chosen=True) for candidate in shown]
    return sorted(plans, key=lambda made: made["seconds"]["step"])


def step_flops(config: Config, work: Work, remat: Remat, shape: BatchShape | None = None) -> int:
    """Operations of one step of all chips together, recomputation included; no mesh changes them."""
    shape = shape or work.shapes[-1]
    one = change(config, remat=remat, microbatch=config.train.batch)
    mesh = abstract_mesh(type(config.mesh)(1, 1, 1))
    return count_flops(trace(one, mesh, abstract_step(one, mesh, shape, work.classes)).jaxpr)


def _planned(config: Config, chips: Slice, work: Work, chosen: bool) -> dict[str, Any]:
    """The plan of settings that suit the slice."""
    largest = work.shapes[-1]
    needs = estimate(config, largest, work.classes)
    compiled, sent = None, None
    if has_compiler(chips):
        mesh = make_mesh(config.mesh, devices_of(chips))
        step = abstract_step(config, mesh, largest, work.classes)
        compiled = compile_for(trace(config, mesh, step), chips, held=chip_bytes(step))
        sent = collectives(compiled.program, chips.chips) if compiled.program else None
    memory = _memory(needs, compiled)
    peak = sum(memory.values())
    shapes = _shapes(config, chips, work, needs, sent)
    epoch = sum(shape["batches"] for shape in shapes)
    step_seconds = sum(shape["batches"] * shape["seconds"]["step"] for shape in shapes) / epoch
    rate = config.train.batch / step_seconds
    fits = peak <= chips.chip.hbm
    result = {
        "topology": str(chips),
        "chips": chips.chips,
        "model": config.model.checkpoint or "Qwen2-Audio-7B, its published shapes",
        "settings": Candidate(config, needs, 0.0).settings().split(),
        "chosen": chosen,
        "batch": config.train.batch,
        "rows_per_chip": config.train.microbatch // (config.mesh.data * config.mesh.fsdp),
        "by": compiler_for(chips).name if compiled else "arithmetic",
        "note": _note(chips, compiled),
        "memory": memory,
        "peak_hbm_bytes_per_chip": int(peak),
        "hbm_bytes_per_chip": int(chips.chip.hbm),
        "spare": round(1 - peak / chips.chip.hbm, 4),
        "fits": fits,
        "shapes": shapes,
        "hbm_traffic_bytes_per_chip": int(moved(chips, needs, fused=fused_attention(chips, config))),
        "collectives": [dataclasses.asdict(row) for row in sent] if sent is not None else None,
        "wire_bytes_per_chip": _wire(needs, sent),
        "compiler": {"seconds": round(compiled.seconds, 1)} if compiled else None,
        "seconds": {name: _mean(shapes, name) for name in shapes[0]["seconds"]},
        "assumed_efficiency": EFFICIENCY,
        "utterances_per_second": rate,
        "mfu_4n": _mean(shapes, None) / step_seconds / chips.chips / chips.chip.flops,
        **_hours(config, work, rate),
    }  # fmt: skip
    return result | {"advice": [] if fits else _advice(config, chips, work)}


def _memory(needs: Estimate, compiled: Compiled | None) -> dict[str, int]:
    """What fills a chip; where the step was compiled, its sum is the compiler's."""
    parts = {
        "weights": needs.weights,
        "trainables": needs.trainables,
        "optimizer": needs.optimizer,
        "batch": needs.inputs,
        "temporaries": needs.temporaries,
    }
    if compiled is None:
        return parts
    held = sum(parts.values()) - parts["temporaries"]
    temporaries = compiled.peak - held if compiled.temporaries is None else compiled.temporaries
    rest = max(0, compiled.peak - held - temporaries)
    return parts | {"temporaries": int(temporaries), "program_and_padding": int(rest)}


def _wire(needs: Estimate, sent: list[Collective] | None) -> int:
    return needs.wire if sent is None else sum(row.wire for row in sent)


def _shapes(
    config: Config, chips: Slice, work: Work, needs: Estimate, sent: list[Collective] | None
) -> list[dict[str, Any]]:
    """Operations and time of each batch shape; what is sent is the compiled largest's, scaled by arithmetic."""
    base = base_config(config.model.checkpoint)
    scale = _wire(needs, sent) / needs.wire if needs.wire else 0.0
    rows = []
    for shape in work.shapes:
        own = estimate(config, shape, work.classes)
        remat, loops = config.model.remat, config.train.batch // config.train.microbatch
        operations = step_flops(config, work, remat, shape) + prefix_again(config, shape, remat)
        traffic = moved(chips, own, fused=fused_attention(chips, config))
        rows.append(
            {
                "seconds_of_audio": shape.samples / SAMPLE_RATE,
                "tokens": shape.tokens,
                "prefix_tokens": shape.prefix,
                "batches": shape.batches,
                "flops": operations,
                "flops_4n": config.train.batch * model_flops(base, shape.samples // HOP, shape.tokens)
                + loops * model_flops(base, 0, shape.prefix),
                "seconds": roofline(chips, operations, traffic, scale * own.wire, scale * own.waited),
            }
        )
    return rows


def _mean(shapes: Iterable[dict[str, Any]], name: str | None) -> float:
    """Over an epoch's batches, of one of the times, or of the 4N operations."""
    weight = sum(shape["batches"] for shape in shapes)
    values = (shape["batches"] * (shape["seconds"][name] if name else shape["flops_4n"]) for shape in shapes)
    return sum(values) / weight


def _hours(config: Config, work: Work, rate: float) -> dict[str, Any]:
    if work.utterances is None:
        return {"hours": PER / rate / 3600, "hours_for": f"{PER:,} utterances"}
    visits = work.utterances * config.train.epochs
    return {
        "hours": visits / rate / 3600,
        "hours_for": f"{config.train.epochs} epochs of {work.utterances:,} utterances, unless it stops early",
    }


def _note(chips: Slice, compiled: Compiled | None) -> str:
    if compiled is None:
        return f"all numbers are by arithmetic: {compiler_for(chips).missing}"
    if not compiled.program:
        return "the compiler found that the step does not fit; collectives are by arithmetic"
    if not chips.is_tpu:
        return (
            "what cuDNN, NCCL and the driver keep for themselves comes on top, and JAX takes three quarters of a GPU's "
            "memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise, as launch/gpu.sh does"
        )
    return ""


def _advice(config: Config, chips: Slice, work: Work) -> list[str]:
    """Changes that would make it fit, the smallest first; peaks by arithmetic."""
    flops = {remat: step_flops(config, work, remat) for remat in ("full", config.model.remat)}
    fit = fitting(candidates(config, chips, work, flops), chips)
    own = (config.mesh, config.train.microbatch, config.model.remat)

    def differs(candidate: Candidate) -> int:
        other = candidate.config
        changed = (other.mesh, other.train.microbatch, other.model.remat)
        return sum(a != b for a, b in zip(own, changed, strict=True))

    best: dict[tuple[bool, ...], Candidate] = {}
    for candidate in sorted(fit, key=lambda c: (differs(c), c.seconds)):
        changed = candidate.config
        what = (changed.mesh != own[0], changed.train.microbatch != own[1], changed.model.remat != own[2])
        best.setdefault(what, candidate)
    said = [f"{c.settings()}: about {c.estimate.peak / 2**30:.1f} GiB" for c in list(best.values())[:3]]
    return said or [
        f"nothing fits {chips}: take more chips, fewer --seconds (data.max_seconds), or model.dtype=bfloat16"
    ]
