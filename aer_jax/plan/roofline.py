"""How long a step takes by a roofline (Williams et al., 2009).

It is the largest of what computing, memory and links would take if each were all there is, at the efficiencies below,
and a tenth of the two others, for not all of them hides. Gathering a layer's weights hides behind the layer before;
sums over `tensor` cannot hide. On a GPU one kernel follows another, so computing and memory add up.
"""

from __future__ import annotations

from aer_jax.chips import Slice
from aer_jax.config import Config
from aer_jax.plan.estimate import Estimate

# Shares of the published peaks that are assumed to be reached; large matrix products alone come near the first two, and
# a slice smaller than a full ring has half its links to gather over.
EFFICIENCY = {"compute": 0.6, "hbm": 0.8, "links": 0.5}
EXPOSED = 0.1  # of what should hide behind the largest of the three
# What the kernels of a step on a GPU read and write, in units of the estimate: attention's scores, where XLA writes
# them, and all else. Fitted, with the shares above, to three steps that an H100 took; the program moves a twelfth less
# since (docs/results/speed_gpu.md).
GPU_SCORES, GPU_TRAFFIC = 3.9, 1.9


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
    return seconds | {"step": alone + (1 - EXPOSED) * max(hiding) + EXPOSED * sum(hiding)}
