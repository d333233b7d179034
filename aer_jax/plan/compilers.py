"""Which compiler makes programs for chips that are not here, and whether it is installed; nothing here imports jax."""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

from aer_jax.chips import Slice


class Compiler(NamedTuple):
    """What compiles for one kind of chip.

    Attributes:
        name: in a plan.
        packages: any one of them brings it.
        extra: of this package, which installs it.
        platform: as jax calls it.
        options: of each compilation.
        mend: what to do where it does not know a slice.
    """

    name: str
    packages: tuple[str, ...]
    extra: str
    platform: str
    options: dict[str, Any]
    mend: str

    @property
    def installed(self) -> bool:
        return any(map(importlib.util.find_spec, self.packages))

    @property
    def missing(self) -> str:
        """A sentence for whom it is not installed."""
        return f'{self.name} is not installed; `pip install "aer-jax[{self.extra}]"` brings it.'


TPU = Compiler("libtpu's compiler", ("libtpu",), "plan", "tpu", {}, "choose a shape that can be rented")
# Triton's products are tuned by running them, and some have no tiles before.
GPU = Compiler(
    "XLA's compiler for GPUs",
    ("jax_cuda13_plugin", "jax_cuda12_plugin"),
    "cuda",
    "cuda",
    {"xla_gpu_enable_triton_gemm": False},
    "see that jax and its CUDA plugin are of one release",
)


def compiler_for(topology: Slice) -> Compiler:
    """The compiler for a slice's chips, installed or not."""
    return TPU if topology.is_tpu else GPU


def has_compiler(topology: Slice) -> bool:
    """Whether the compiler for a slice's chips is installed."""
    return compiler_for(topology).installed
