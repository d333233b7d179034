"""Meshes and microbatches that a slice allows, what each needs by arithmetic, and which are worth compiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from aer_jax.chips import Slice
from aer_jax.config import Config, MeshConfig, Remat
from aer_jax.errors import UserError
from aer_jax.plan.abstract_step import base_config
from aer_jax.plan.estimate import Estimate, estimate, fused_attention, moved, prefix_again, roofline
from aer_jax.plan.shapes import Work

SPARE = 0.3  # of the memory that stays free where a plan chooses: arithmetic errs by a tenth, and runs need some room


class Candidate(NamedTuple):
    """Settings with a mesh that makes the slice's chips, and what they need at the largest shape."""

    config: Config
    estimate: Estimate
    seconds: float

    def settings(self) -> str:
        """As they are written on the command line."""
        mesh, train = self.config.mesh, self.config.train
        return (
            f"mesh.data={mesh.data} mesh.fsdp={mesh.fsdp} mesh.tensor={mesh.tensor} "
            f"train.microbatch={train.microbatch} model.remat={self.config.model.remat}"
        )


def candidates(config: Config, topology: Slice, work: Work, flops: Mapping[Remat, float]) -> list[Candidate]:
    """Every mesh and microbatch for `train.batch`, quickest by arithmetic first.

    Args:
        config: batch and model.
        topology: the chips.
        work: the largest shape counts.
        flops: remat policy -> operations of a step; these policies are tried.
    """
    found, fused = [], fused_attention(topology, config)
    for mesh in _meshes(config, topology.chips):
        rows = mesh.data * mesh.fsdp
        for microbatch in _microbatches(config.train.batch, rows):
            for remat, operations in flops.items():
                settings = change(config, mesh=mesh, microbatch=microbatch, remat=remat)
                shape = work.shapes[-1]
                needs = estimate(settings, shape, work.classes)
                operations += prefix_again(settings, shape, remat)
                traffic = moved(topology, needs, fused=fused)
                seconds = roofline(topology, operations, traffic, needs.wire, needs.waited)["step"]
                found.append(Candidate(settings, needs, seconds))
    return sorted(found, key=lambda candidate: candidate.seconds)


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


def fitting(found: list[Candidate], topology: Slice) -> list[Candidate]:
    """Those that leave `SPARE` of the memory free."""
    return [c for c in found if c.estimate.peak <= (1 - SPARE) * topology.chip.hbm]


def pareto(found: list[Candidate]) -> list[Candidate]:
    """Those than which no other is both quicker and leaner; `found` is sorted by time."""
    front: list[Candidate] = []
    for candidate in found:
        if not front or candidate.estimate.peak < front[-1].estimate.peak:
            front.append(candidate)
    return front


def _meshes(config: Config, chips: int) -> Iterator[MeshConfig]:
    """Shapes that keep whole heads on a chip."""
    base = base_config(config.model.checkpoint)
    heads = (base.text_config.num_attention_heads, base.text_config.num_key_value_heads,
             base.audio_config.encoder_attention_heads)  # fmt: skip
    for tensor in range(1, chips + 1):
        if chips % tensor or any(count % tensor for count in heads):
            continue
        for fsdp in range(1, chips // tensor + 1):
            if (chips // tensor) % fsdp == 0:
                yield MeshConfig(chips // tensor // fsdp, fsdp, tensor)


def _microbatches(batch: int, rows: int) -> Iterator[int]:
    """Doubling, from one row a chip to the whole batch; each divides the batch."""
    microbatch = rows
    while microbatch <= batch:
        if batch % microbatch == 0:
            yield microbatch
        microbatch *= 2


def settled(config: Config, topology: Slice, work: Work, flops: Mapping[Remat, float]) -> tuple[Config, bool]:
    """The settings with a mesh that makes the slice, and whether the plan had to choose it.

    A mesh section that is left out is chosen with the microbatch: the quickest by arithmetic that fits, or the leanest.

    Raises:
        UserError: the mesh does not make the slice's chips, or the batch does not divide.
    """
    batch, microbatch = config.train.batch, config.train.microbatch
    if config.mesh == MeshConfig():
        found = candidates(config, topology, work, flops)
        if not found:
            raise UserError(
                f"train.batch {batch} does not divide over any mesh of the {topology.chips} chips of {topology}; make "
                f"it a multiple of {topology.chips}."
            )
        best = (fitting(found, topology) or [min(found, key=lambda c: c.estimate.peak)])[0]
        return best.config, True
    mesh = whole(config.mesh, topology)
    rows = mesh.data * mesh.fsdp
    if microbatch < 1 or batch % microbatch or microbatch % rows:
        good = list(_microbatches(batch, rows))
        mend = f"for instance train.microbatch={good[0]}" if good else f"for instance train.batch={4 * rows}"
        raise UserError(
            f"train.batch {batch} must be a multiple of train.microbatch {microbatch}, and that one of the {rows} "
            f"chips along data and fsdp; {mend}."
        )
    return change(config, mesh=mesh), False


def whole(mesh: MeshConfig, topology: Slice) -> MeshConfig:
    """The mesh with -1 replaced by the chips that are left.

    Raises:
        UserError: the axes do not multiply to the slice's chips.
    """
    sizes = [mesh.data, mesh.fsdp, mesh.tensor]
    known = 1
    for size in sizes:
        known *= size if size > 0 else 1
    if sizes.count(-1) == 1 and topology.chips % known == 0:
        sizes[sizes.index(-1)] = topology.chips // known
    if min(sizes) < 1 or sizes[0] * sizes[1] * sizes[2] != topology.chips:
        asked = f"data {sizes[0]} x fsdp {sizes[1]} x tensor {sizes[2]}"
        raise UserError(
            f"mesh: {asked} does not make the {topology.chips} chips of {topology}; change the mesh section."
        )
    return MeshConfig(*sizes)
