"""Accelerators by their published numbers, and slices of them by name: v5e:4x4, v5p:2x2x4, h100:8."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from aer_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Chip:
    """What a data sheet says of one chip.

    Attributes:
        hbm: bytes of memory.
        flops: dense bfloat16 operations per second, peak.
        hbm_rate: bytes per second between memory and cores.
        link_rate: bytes per second that it sends to other chips of its slice, all links together.
        axes: of the slice's shape, 2 or 3 for a TPU's mesh of chips; 1 for GPUs behind a switch.
        device_kinds: what JAX calls it.
    """

    name: str
    hbm: float
    flops: float
    hbm_rate: float
    link_rate: float
    axes: int
    device_kinds: tuple[str, ...]


GIB = 2**30
CHIPS = {
    chip.name: chip
    for chip in (
        # https://cloud.google.com/tpu/docs/v4: 275 TFLOP/s, 32 GiB, 1228 GB/s, 2400 Gbit/s over six links.
        Chip("v4", 32 * GIB, 275e12, 1228e9, 2400e9 / 8, 3, ("TPU v4",)),
        # https://cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 16 GB, 819 GB/s, 1600 Gbit/s over four links.
        Chip("v5e", 16 * GIB, 197e12, 819e9, 1600e9 / 8, 2, ("TPU v5 lite", "TPU v5e")),
        # https://cloud.google.com/tpu/docs/v5p: 459 TFLOP/s, 95 GB, 2765 GB/s, 4800 Gbit/s over six links.
        Chip("v5p", 95 * GIB, 459e12, 2765e9, 4800e9 / 8, 3, ("TPU v5", "TPU v5p")),
        # https://cloud.google.com/tpu/docs/v6e: 918 TFLOP/s, 32 GB, 1640 GB/s, 3584 Gbit/s over four links.
        Chip("v6e", 32 * GIB, 918e12, 1640e9, 3584e9 / 8, 2, ("TPU v6 lite", "TPU v6e")),
        # https://www.nvidia.com/en-us/data-center/a100 (SXM, 80 GB): 312 TFLOP/s, 2039 GB/s, NVLink 600 GB/s both ways.
        Chip("a100", 80e9, 312e12, 2039e9, 300e9, 1, ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB")),
        # https://www.nvidia.com/en-us/data-center/h100 (SXM): 989 TFLOP/s dense, 80 GB, 3.35 TB/s, NVLink 900 GB/s.
        Chip("h100", 80e9, 989e12, 3350e9, 450e9, 1, ("NVIDIA H100 80GB HBM3",)),
        # https://www.nvidia.com/en-us/data-center/h200 (SXM): as the H100 with 141 GB at 4.8 TB/s.
        Chip("h200", 141e9, 989e12, 4800e9, 450e9, 1, ("NVIDIA H200",)),
    )
}
HOST = 8  # GPUs behind one NVLink switch; what lies beyond is a network that this table does not know


@dataclass(frozen=True)
class Slice:
    """Chips that work on one run, for instance 4 x 4 v5e."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def is_tpu(self) -> bool:
        return self.chip.axes > 1

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_slice(text: str) -> Slice:
    """The slice that `text` names.

    Raises:
        UserError: no such chip, or no shape that it comes in.
    """
    match = re.fullmatch(r"([a-z0-9]+):(\d+(?:x\d+)*)", text.strip().lower())
    name = text.partition(":")[0].strip().lower()
    if name not in CHIPS:
        raise UserError(f'--topology: no chip "{name}" is known.{nearest(name, CHIPS)} Known: {", ".join(CHIPS)}.')
    chip = CHIPS[name]
    example = {1: f"{name}:8", 2: f"{name}:4x4", 3: f"{name}:2x2x4"}[chip.axes]
    shape = tuple(map(int, match[2].split("x"))) if match else ()
    if len(shape) != chip.axes or min(shape) < 1:
        raise UserError(f'--topology: "{text}" is no slice; write the chips along each axis, for instance {example}.')
    if chip.axes == 1 and shape[0] > HOST:
        raise UserError(
            f"--topology: {text} reaches beyond one host, and the network between hosts is not known here; plan for "
            f"{name}:{HOST} and count hosts along mesh.data."
        )
    return Slice(chip, shape)


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls `device_kind`, if this table has it."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.device_kinds), None)
