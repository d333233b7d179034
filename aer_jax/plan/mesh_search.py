"""Search over meshes, microbatches and remat policies by analytic estimates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aer_jax.chips import GIB, Slice
from aer_jax.config import Config, MeshConfig, Remat
from aer_jax.errors import UserError
from aer_jax.plan.abstract_step import base_config
from aer_jax.plan.estimate import Estimate, estimate, repeated_prefix_flops
from aer_jax.plan.roofline import step_seconds
from aer_jax.plan.shapes import Work

SPARE = 0.3  # of the memory that stays free where a plan chooses: arithmetic errs by a tenth, and runs need some room


class Candidate(NamedTuple):
    """Settings with a mesh for the slice, and their estimate at the largest shape."""

    config: Config
    estimate: Estimate
    seconds: float


def candidates(config: Config, topology: Slice, work: Work, flops: Mapping[Remat, float]) -> list[Candidate]:
    """Every mesh and microbatch for `train.batch`, quickest by arithmetic first.

    Args:
        config: batch and model.
        topology: the chips.
        work: the largest shape counts.
        flops: remat policy -> operations of a step; these policies are tried.
    """
    tried, shape = [], work.shapes[-1]
    for mesh in _meshes(config, topology.chips):
        for microbatch in _microbatches(config.train.batch, mesh.data * mesh.fsdp):
            for remat, operations in flops.items():
                settings = change(config, mesh=mesh, microbatch=microbatch, remat=remat)
                needs = estimate(settings, shape, work.classes)
                operations += repeated_prefix_flops(settings, shape, remat)
                seconds = step_seconds(settings, topology, needs, operations)["step"]
                tried.append(Candidate(settings, needs, seconds))
    return sorted(tried, key=lambda candidate: candidate.seconds)


def change(
    config: Config, *, mesh: MeshConfig | None = None, microbatch: int | None = None, remat: Remat | None = None
) -> Config:
    """`config` with other values of these settings."""
    changed: dict[str, Any] = {"mesh": mesh or config.mesh}
    if microbatch is not None:
        changed["train"] = dataclasses.replace(config.train, microbatch=microbatch)
    if remat is not None:
        changed["model"] = dataclasses.replace(config.model, remat=remat)
    return dataclasses.replace(config, **changed)


def mesh_settings(config: Config) -> list[str]:
    """The settings that a plan may choose, as they are written on the command line."""
    mesh = config.mesh
    return [
        *(f"mesh.{axis}={getattr(mesh, axis)}" for axis in ("data", "fsdp", "tensor")),
        f"train.microbatch={config.train.microbatch}",
        f"model.remat={config.model.remat}",
    ]


def fitting(some: Sequence[Candidate], topology: Slice) -> list[Candidate]:
    """Candidates that leave a share `SPARE` of the memory free."""
    return [plan for plan in some if plan.estimate.peak <= (1 - SPARE) * topology.chip.hbm]


def pareto(by_time: Sequence[Candidate]) -> list[Candidate]:
    """Pareto front over time and memory; the candidates are sorted by time."""
    front: list[Candidate] = []
    for candidate in by_time:
        if not front or candidate.estimate.peak < front[-1].estimate.peak:
            front.append(candidate)
    return front


def choose_mesh(config: Config, topology: Slice, work: Work, flops: Mapping[Remat, float]) -> tuple[Config, bool]:
    """The settings with a mesh that makes the slice, and whether the plan had to choose it.

    A mesh section that is left out is chosen with the microbatch: the quickest by arithmetic that fits, or the one that
    takes least memory.

    Raises:
        UserError: the mesh does not make the slice's chips, or the batch does not divide.
    """
    batch, microbatch = config.train.batch, config.train.microbatch
    if config.mesh == MeshConfig():
        tried = candidates(config, topology, work, flops)
        if not tried:
            raise UserError(
                f"train.batch {batch} does not divide over any mesh of the {topology.chips} chips of {topology}; make "
                f"it a multiple of {topology.chips}."
            )
        best = (fitting(tried, topology) or [min(tried, key=lambda candidate: candidate.estimate.peak)])[0]
        return best.config, True
    mesh = complete_mesh(config.mesh, topology)
    rows = mesh.data * mesh.fsdp
    if microbatch < 1 or batch % microbatch or microbatch % rows:
        good = next(_microbatches(batch, rows), None)
        fix = f"for instance train.microbatch={good}" if good else f"for instance train.batch={4 * rows}"
        raise UserError(
            f"train.batch {batch} must be a multiple of train.microbatch {microbatch}, and that one of the {rows} "
            f"chips along data and fsdp; {fix}."
        )
    return change(config, mesh=mesh), False


def complete_mesh(mesh: MeshConfig, topology: Slice) -> MeshConfig:
    """The mesh with -1 replaced by the chips that are left.

    Raises:
        UserError: the axes do not multiply to the slice's chips.
    """
    sizes = [mesh.data, mesh.fsdp, mesh.tensor]
    known = math.prod(size for size in sizes if size > 0)
    if sizes.count(-1) == 1 and topology.chips % known == 0:
        sizes[sizes.index(-1)] = topology.chips // known
    if min(sizes) < 1 or math.prod(sizes) != topology.chips:
        axes = f"data {sizes[0]} x fsdp {sizes[1]} x tensor {sizes[2]}"
        raise UserError(
            f"mesh: {axes} does not make the {topology.chips} chips of {topology}; change the mesh section."
        )
    return MeshConfig(*sizes)


def advice(config: Config, topology: Slice, work: Work, flops: Mapping[Remat, float]) -> list[str]:
    """Changes that would make a run fit, the smallest first; peaks by arithmetic."""
    own = mesh_settings(config)

    def changes(candidate: Candidate) -> tuple[bool, bool, bool]:
        """Whether mesh, microbatch and remat differ."""
        new = mesh_settings(candidate.config)
        return new[:3] != own[:3], new[3] != own[3], new[4] != own[4]

    fit = fitting(candidates(config, topology, work, flops), topology)
    best: dict[tuple[bool, bool, bool], Candidate] = {}
    for candidate in sorted(fit, key=lambda candidate: (sum(changes(candidate)), candidate.seconds)):
        best.setdefault(changes(candidate), candidate)
    return [
        f"{' '.join(mesh_settings(plan.config))}: about {plan.estimate.peak / GIB:.1f} GiB"
        for plan in list(best.values())[:3]
    ] or [f"nothing fits {topology}: take more chips, fewer --seconds (data.max_seconds), or model.dtype=bfloat16"]


def _meshes(config: Config, chips: int) -> Iterator[MeshConfig]:
    base = base_config(config.model.checkpoint)
    text, audio = base.text_config, base.audio_config
    heads = math.gcd(text.num_attention_heads, text.num_key_value_heads, audio.encoder_attention_heads)
    for tensor in range(1, chips + 1):
        if chips % tensor == 0 and heads % tensor == 0:
            rows = chips // tensor
            yield from (MeshConfig(rows // fsdp, fsdp, tensor) for fsdp in range(1, rows + 1) if rows % fsdp == 0)


def _microbatches(batch: int, rows: int) -> Iterator[int]:
    """Doubling, from one row per chip to the whole batch; each divides the batch."""
    microbatch = rows
    while microbatch <= batch:
        if batch % microbatch == 0:
            yield microbatch
        microbatch *= 2
