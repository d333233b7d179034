"""Analytic estimate of a step's memory and traffic per chip; takes milliseconds, for any chip.

Sharded sizes are exact. Activations and memory traffic are sums over the large arrays of a layer, good to some tens of
per cent; a compiled program knows better, and a GPU's kernels move more, see `roofline.memory_traffic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, AxisType

from aer_jax.base.lengths import HOP
from aer_jax.config import Config, MeshConfig, Remat
from aer_jax.models.flops import model_flops
from aer_jax.models.sharding import AXES
from aer_jax.plan.abstract_step import AbstractStep, abstract_step, base_config, chip_bytes
from aer_jax.plan.shapes import BatchShape


class Estimate(NamedTuple):
    """Of one step on one chip, bytes.

    Attributes:
        weights, trainables, optimizer, inputs: held all the time, exact.
        temporaries: activations, gathered weights, gradients; by arithmetic.
        traffic: read from and written to the chip's memory; by arithmetic, see `roofline.memory_traffic`.
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
    stacks = _stacks(config, shape, step)
    trainables = chip_bytes(step.state.trainable)
    microbatches = config.train.batch // config.train.microbatch
    tower, language = stacks
    gradients = 2 * trainables  # the sum over microbatches and that of one
    activations = max(tower.kept + tower.at_work, tower.kept + language.kept + language.at_work)
    wire, waited = _sent(config, stacks, step, microbatches)
    return Estimate(
        weights=chip_bytes(step.frozen),
        trainables=trainables,
        optimizer=chip_bytes(step.state.optimizer),
        inputs=chip_bytes(step.batch),
        temporaries=gradients + activations,
        traffic=microbatches * sum(stack.traffic for stack in stacks) + 6 * trainables,
        scores=microbatches * sum(stack.scores_traffic for stack in stacks),
        wire=int(wire + waited),
        waited=int(waited),
    )


def _stacks(config: Config, shape: BatchShape, step: AbstractStep) -> tuple[_Stack, _Stack]:
    base, mesh = base_config(config.model.checkpoint), config.mesh
    rows = config.train.microbatch // (mesh.data * mesh.fsdp)
    audio, text = base.audio_config, base.text_config
    positions = shape.samples // HOP // 2
    tokens = shape.tokens + -(-shape.prefix // rows)  # each chip reads the prefix once
    sizes = [
        (audio.encoder_layers, positions, audio.d_model, audio.encoder_ffn_dim, 2, audio.encoder_attention_heads),
        (text.num_hidden_layers, tokens, text.hidden_size, text.intermediate_size, 3, text.num_attention_heads),
    ]
    weights = [step.frozen["base"][name]["layers"] for name in ("audio_tower", "language_model")]
    item, remat = jnp.dtype(config.model.dtype).itemsize, config.model.remat
    tower, language = (
        _Stack(*size, rows, item, remat, mesh, gathered=_bytes_whole_along_fsdp(own, mesh.fsdp))
        for size, own in zip(sizes, weights, strict=True)
    )
    return tower, language


def _sent(config: Config, stacks: Sequence[_Stack], step: AbstractStep, microbatches: int) -> tuple[float, float]:
    """Bytes that one chip sends: overlapped with products, and blocking the next product."""
    mesh, wire, waited = config.mesh, 0.0, 0.0
    if mesh.fsdp > 1:
        wire += microbatches * 2 * sum(stack.gathered for stack in stacks) * (mesh.fsdp - 1) / mesh.fsdp
    if mesh.tensor > 1:
        reductions = sum(2 * stack.passes * stack.layers * stack.state for stack in stacks)
        waited = microbatches * reductions * 2 * (mesh.tensor - 1) / mesh.tensor
    if (others := mesh.data * mesh.fsdp) > 1:
        gradient = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(step.state.trainable))
        wire += microbatches * 2 * gradient * (others - 1) / others
    return wire, waited


def repeated_prefix_flops(config: Config, shape: BatchShape, remat: Remat) -> int:
    """Operations by which a step exceeds that of one chip and one microbatch: each chip reads the prefix in each."""
    copies = config.mesh.data * config.mesh.fsdp * config.train.batch // config.train.microbatch
    once = model_flops(base_config(config.model.checkpoint), 0, shape.prefix)
    return (copies - 1) * once * (3 if remat == "full" else 2) // 2


@dataclass(frozen=True)
class _Stack:
    """A stack of transformer layers as one chip sees it in one microbatch.

    Attributes:
        matrices: of the feed-forward block that have its inner width.
        item: bytes of a number.
        gathered: bytes of all layers' weights, as one chip gathers them along fsdp.
    """

    layers: int
    time: int
    width: int
    inner: int
    matrices: int
    heads: int
    rows: int
    item: int
    remat: Remat
    mesh: MeshConfig
    gathered: int

    @property
    def passes(self) -> int:
        """Forward, again where it is recomputed, backward."""
        return 3 if self.remat == "full" else 2

    @property
    def state(self) -> int:
        """Bytes of what one layer hands to the next."""
        return self.rows * self.time * self.width * self.item

    @property
    def scores(self) -> int:
        """Attention scores of one layer, float32."""
        return 4 * self.rows * self.heads * self.time**2 // self.mesh.tensor

    @property
    def kept(self) -> int:
        """For the backward pass, of all layers."""
        kept = self.state
        if self.remat != "full":
            products = 2 * self.width + (3 * self.width + (self.matrices - 1) * self.inner) // self.mesh.tensor
            kept += self.rows * self.time * products * self.item
        if self.remat == "none":
            kept += self.scores + 4 * self.rows * self.time * self.width * 4  # and what adapters read, in float32
        return self.layers * kept

    @property
    def activations(self) -> int:
        """Of one layer while it runs backward."""
        feed_forward = 2 * self.rows * self.time * self.matrices * self.inner * self.item // self.mesh.tensor
        return 8 * self.state + feed_forward + 2 * self.scores

    @property
    def at_work(self) -> int:
        """Activations, and what is gathered for them, as much as three layers' weights."""
        return self.activations + (3 * self.gathered // self.layers if self.mesh.fsdp > 1 else 0)

    @property
    def traffic(self) -> int:
        """Read from and written to the chip's memory."""
        weights = (self.passes + (2 if self.mesh.fsdp > 1 else 0)) * self.gathered
        return weights + self.passes * self.layers * self.activations + 2 * self.kept

    @property
    def scores_traffic(self) -> int:
        """Of `traffic`, the scores of attention: as often as `activations` and `kept` count them."""
        return (2 * self.passes + (2 if self.remat == "none" else 0)) * self.layers * self.scores


def _bytes_whole_along_fsdp(stack: nnx.State, fsdp: int) -> int:
    return sum(chip_bytes(leaf) * (fsdp if "fsdp" in leaf.sharding.spec else 1) for leaf in jax.tree.leaves(stack))
