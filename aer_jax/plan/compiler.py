"""Ahead-of-time compilation for absent TPUs or GPUs, and the program's needs per chip."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from aer_jax.chips import GIB, Slice
from aer_jax.devices import has_plugin
from aer_jax.errors import UserError
from aer_jax.plan.gpu_target import target_config


class Compiler(NamedTuple):
    """What compiles for one kind of chip.

    Attributes:
        name: in a plan.
        extra: of this package, which installs it.
        platform: as JAX calls it, and `devices.PLUGINS`.
        options: of each compilation.
        fix: what to do where it does not know a slice.
    """

    name: str
    extra: str
    platform: str
    options: dict[str, Any]
    fix: str

    @property
    def missing(self) -> str:
        """What to say where it is not installed."""
        return f'{self.name} is not installed; `pip install "aer-jax[{self.extra}]"` brings it.'


TPU = Compiler("libtpu's compiler", "plan", "tpu", {}, "choose a shape that can be rented")
# Triton tunes its products by running them, and for some has no tiles before.
NO_TRITON = {"xla_gpu_enable_triton_gemm": False}
GPU = Compiler(
    "XLA's compiler for GPUs", "cuda", "cuda", NO_TRITON, "see that jax and its CUDA plugin are of one release"
)


def compiler_for(topology: Slice) -> Compiler:
    """The compiler for a slice's chips, installed or not."""
    return TPU if topology.is_tpu else GPU


def has_compiler(topology: Slice) -> bool:
    """Whether the compiler for a slice's chips is installed."""
    return has_plugin(compiler_for(topology).platform)


@dataclass(frozen=True)
class Compiled:
    """A program for one chip of a slice.

    Attributes:
        peak: bytes of the chip's memory: arguments, results that do not take their place, temporaries and the program.
        temporaries: bytes of activations, gathered weights, gradients and whatever else lives during a step; None
            where the program did not fit and the compiler said only the peak.
        program: HLO text; "" where it did not fit.
        seconds: it took to compile.
    """

    peak: float
    temporaries: float | None
    program: str
    seconds: float


def devices_of(topology: Slice) -> list[jax.Device]:
    """The devices of a slice, to make a mesh of; they can be compiled for and nothing else.

    Raises:
        UserError: the compiler is missing, or knows no such slice.
    """
    compiler = compiler_for(topology)
    if not has_compiler(topology):
        raise UserError(compiler.missing)
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks no metadata server: this is no TPU machine
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # its lock guards TPUs, and there are none
    if topology.is_tpu:
        wanted = {"platform": "tpu", "topology_name": str(topology)}
    else:  # groups of hosts x hosts x GPUs
        layout = f"1x1x{topology.chips}"
        wanted = {"platform": "cuda", "topology": layout, "target_config": target_config(topology.chip)}
    try:
        with _silent_stderr():
            return list(topologies.get_topology_desc(**wanted).devices)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{compiler.name} has no slice {topology} ({reason}); {compiler.fix}.") from None


def compile_for(traced, topology: Slice, held: int) -> Compiled:
    """Compile a traced step for the devices of its shardings.

    Args:
        traced: see `abstract_step.trace`.
        topology: whose devices they are.
        held: bytes of its arguments on one chip.

    Raises:
        UserError: the compiler refused it for something else than memory.
    """
    compiler, start = compiler_for(topology), time.monotonic()
    try:
        lowered = traced.lower(lowering_platforms=(compiler.platform,))
        compiled = lowered.compile(compiler_options=compiler.options)
    except jax.errors.JaxRuntimeError as error:
        peak = _refused_peak(str(error), held)
        if peak is None:
            reason = " ".join(str(error).split())[:400]
            raise UserError(f"{compiler.name} refused the step: {reason}") from None
        return Compiled(peak, None, "", time.monotonic() - start)
    memory = compiled.memory_analysis()
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return Compiled(peak, memory.temp_size_in_bytes, compiled.as_text(), time.monotonic() - start)


def _refused_peak(message: str, held: int) -> float | None:
    """Bytes that a step which does not fit would need, from either of the ways in which the compiler says so."""
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    if used := re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message):
        return float(used[1]) * units[used[2]]
    if used := re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds", message):
        return float(used[1]) * units[used[2]] + held
    return None


@contextmanager
def _silent_stderr() -> Iterator[None]:
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
