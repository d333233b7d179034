"""What a step needs of each chip by arithmetic alone: memory, traffic and time, in milliseconds, for any chip.

Sharded sizes are exact. Activations and memory traffic are sums over the large arrays of a layer, good to some tens of
per cent; a compiled program knows better, and a GPU's kernels move more, see `memory_traffic`. The time is a roofline
(Williams et al., 2009): the largest of what computing, memory and links would take if each were all there is, at the
efficiencies below, and a tenth of the two others, for not all of them hides. Gathering a layer's weights hides behind
the layer before; sums over `tensor` cannot hide. On a GPU one kernel follows another, so computing and memory add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, AxisType

from aer_jax.base.lengths import HOP
from aer_jax.chips import Slice
from aer_jax.config import Config, MeshConfig, Remat
from aer_jax.models.flops import model_flops
from aer_jax.models.sharding import AXES
from aer_jax.plan.abstract_step import abstract_step, base_config, chip_bytes
from aer_jax.plan.shapes import BatchShape

# Shares of the published peaks that are assumed to be reached; large matrix products alone come near the first two, and
# a slice smaller than a full ring has half its links to gather over.
EFFICIENCY = {"compute": 0.6, "hbm": 0.8, "links": 0.5}
SHOWS = 0.1  # of what should hide behind the largest of the three
# What the kernels of a step on a GPU read and write, times the sums below: attention's scores, where XLA writes them,
# and all else. With these two and the shares above come out three steps that an H100 took; the program moves a twelfth
# less since (docs/results/speed_gpu.md).
GPU_SCORES, GPU_TRAFFIC = 3.9, 1.9


class Estimate(NamedTuple):
    """Of one step on one chip, bytes.

    Attributes:
        weights, trainables, optimizer, inputs: held all the time, exact.
        temporaries: activations, gathered weights, gradients; by arithmetic.
        traffic: read from and written to the chip's memory; by arithmetic, see `memory_traffic`.
        scores: of `traffic`, the scores of attention.
        wire: sent to other chips; by arithmetic.
        waited: of `wire`, the sums over `tensor` inside a block, which the next product waits for.
    """

    weights: int
    trainables: int
    optimizer: int
    inputs: int
    temporaries: int
    traffic: int
    scores: int
    wire: int
    waited: int

    @property
    def peak(self) -> int:
        return self.weights + self.trainables + self.optimizer + self.inputs + self.temporaries


def abstract_mesh(mesh: MeshConfig) -> AbstractMesh:
    """The mesh without devices."""
    return AbstractMesh((mesh.data, mesh.fsdp, mesh.tensor), AXES, axis_types=(AxisType.Auto,) * 3)


def estimate(config: Config, shape: BatchShape, classes: int) -> Estimate:
    """By arithmetic, for a mesh without -1; arguments are those of `abstract_step`."""
    step = abstract_step(config, abstract_mesh(config.mesh), shape, classes)
    base, mesh, item = base_config(config.model.checkpoint), config.mesh, jnp.dtype(config.model.dtype).itemsize
    loops = config.train.batch // config.train.microbatch
    rows = config.train.microbatch // (mesh.data * mesh.fsdp)
    audio, text = base.audio_config, base.text_config
    positions = shape.samples // HOP // 2
    tokens = shape.tokens + -(-shape.prefix // rows)  # each chip reads the prefix once
    layers = [
        _Layers(audio.encoder_layers, rows, positions, audio.d_model, audio.encoder_ffn_dim, 2,
                audio.encoder_attention_heads),
        _Layers(text.num_hidden_layers, rows, tokens, text.hidden_size, text.intermediate_size, 3,
                text.num_attention_heads),
    ]  # fmt: skip
    stacks = [step.frozen["base"][name]["layers"] for name in ("audio_tower", "language_model")]
    whole = [_bytes_whole_along_fsdp(stack, mesh.fsdp) for stack in stacks]  # of all layers, as one chip gathers them
    remat, trainables = config.model.remat, chip_bytes(step.state.trainable)

    kept = [part.kept(remat, item, mesh.tensor) for part in layers]
    at_work = [
        part.at_work(item, mesh.tensor) + (3 * size // part.count if mesh.fsdp > 1 else 0)
        for part, size in zip(layers, whole, strict=True)
    ]
    gradients = 2 * trainables  # the sum over microbatches and that of one
    temporaries = gradients + max(kept[0] + at_work[0], sum(kept) + at_work[1])

    reads = 3 if remat == "full" else 2  # forward, again, backward
    moved = (reads + (2 if mesh.fsdp > 1 else 0)) * sum(whole)
    moved += sum(
        reads * part.count * part.at_work(item, mesh.tensor) + 2 * k for part, k in zip(layers, kept, strict=True)
    )
    traffic = loops * moved + 6 * trainables
    touched = 2 * reads + (2 if remat == "none" else 0)  # as often as `at_work` and `kept` count them
    scores = loops * sum(touched * part.count * part.scores(mesh.tensor) for part in layers)

    wire = waited = 0.0
    if mesh.fsdp > 1:
        wire += loops * 2 * sum(whole) * (mesh.fsdp - 1) / mesh.fsdp
    if mesh.tensor > 1:
        reductions = 2 * reads * sum(part.count * part.state(item) for part in layers)
        waited = loops * reductions * 2 * (mesh.tensor - 1) / mesh.tensor
    if (others := mesh.data * mesh.fsdp) > 1:
        gradient = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(step.state.trainable))
        wire += loops * 2 * gradient * (others - 1) / others
    return Estimate(
        chip_bytes(step.frozen),
        trainables,
        chip_bytes(step.state.optimizer),
        chip_bytes(step.batch),
        int(temporaries),
        int(traffic),
        int(scores),
        int(wire + waited),
        int(waited),
    )


def repeated_prefix_flops(config: Config, shape: BatchShape, remat: Remat) -> int:
    """Operations by which a step exceeds that of one chip and one microbatch: each chip reads the prefix in each."""
    copies = config.mesh.data * config.mesh.fsdp * config.train.batch // config.train.microbatch
    once = model_flops(base_config(config.model.checkpoint), 0, shape.prefix)
    return (copies - 1) * once * (3 if remat == "full" else 2) // 2


@dataclass(frozen=True)
class _Layers:
    """A stack of transformer layers as one chip sees it; `matrices` of the feed-forward block have its inner width."""

    count: int
    rows: int
    time: int
    width: int
    inner: int
    matrices: int
    heads: int

    def state(self, item: int) -> int:
        """Bytes of what one layer hands to the next."""
        return self.rows * self.time * self.width * item

    def scores(self, tensor: int) -> int:
        """Attention scores of one layer, float32."""
        return 4 * self.rows * self.heads * self.time**2 // tensor

    def kept(self, remat: Remat, item: int, tensor: int) -> int:
        """For the backward pass, of all layers."""
        kept = self.state(item)
        if remat != "full":
            products = 2 * self.width + (3 * self.width + (self.matrices - 1) * self.inner) // tensor
            kept += self.rows * self.time * products * item
        if remat == "none":
            kept += self.scores(tensor) + 4 * self.state(4)  # and what adapters read, in float32
        return self.count * kept

    def at_work(self, item: int, tensor: int) -> int:
        """While one layer runs backward."""
        return (
            8 * self.state(item)
            + 2 * self.rows * self.time * self.matrices * self.inner * item // tensor
            + 2 * self.scores(tensor)
        )


def _bytes_whole_along_fsdp(stack: nnx.State, fsdp: int) -> int:
    return sum(chip_bytes(leaf) * (fsdp if "fsdp" in leaf.sharding.spec else 1) for leaf in jax.tree.leaves(stack))


def memory_traffic(topology: Slice, config: Config, needs: Estimate) -> float:
    """Bytes that a step moves to and from one chip's memory.

    A GPU's fused attention, which one chip has in bfloat16 (`models.attention.kernel_for`), writes no scores.
    """
    if topology.is_tpu:
        return needs.traffic
    fused = topology.chips == 1 and config.model.dtype == "bfloat16"
    return GPU_TRAFFIC * (needs.traffic - needs.scores) + (0.0 if fused else GPU_SCORES * needs.scores)


def step_seconds(
    config: Config, topology: Slice, needs: Estimate, flops: float, wire_scale: float = 1.0
) -> dict[str, float]:
    """`roofline` of a step.

    Args:
        config, topology: of the run.
        needs: by `estimate`.
        flops: of all chips together.
        wire_scale: how many times the estimated bytes are sent.
    """
    traffic = memory_traffic(topology, config, needs)
    return roofline(topology, flops, traffic, wire_scale * needs.wire, wire_scale * needs.waited)


def roofline(topology: Slice, flops: float, traffic: float, wire: float, waited: float) -> dict[str, float]:
    """Seconds per step.

    Args:
        topology: whose peaks count.
        flops: of all chips together.
        traffic, wire, waited: of one chip, see `Estimate` and `memory_traffic`.

    Returns:
        compute, hbm, links: each by itself; step: what nothing hides, then the largest of the rest and a tenth of the
        others, where computing and memory of a GPU are one.
    """
    chip = topology.chip
    seconds = {
        "compute": flops / topology.chips / (chip.flops * EFFICIENCY["compute"]),
        "hbm": traffic / (chip.hbm_rate * EFFICIENCY["hbm"]),
        "links": wire / (chip.link_rate * EFFICIENCY["links"]),
    }
    alone = seconds["links"] * waited / wire if wire else 0.0
    busy = [seconds["compute"], seconds["hbm"]]
    hiding = [*(busy if topology.is_tpu else [sum(busy)]), seconds["links"] - alone]
    return seconds | {"step": alone + (1 - SHOWS) * max(hiding) + SHOWS * sum(hiding)}
