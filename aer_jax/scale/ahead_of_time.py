"""libtpu's ahead-of-time compiler: a program for TPUs that are not here, and what it needs of each."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax

from aer_jax.errors import UserError
from aer_jax.scale.chips import GIB, Slice

INSTALL = 'no TPU compiler is installed; `pip install "aer-jax[plan]"` brings it (libtpu, about 200 MB).'


@dataclass(frozen=True)
class Compiled:
    """A program for one chip of a slice.

    Attributes:
        peak: bytes of the chip's memory: arguments, results that do not take their place, temporaries and the program.
        temporaries: bytes of activations, gathered weights, gradients and whatever else lives during a step; None
            where the program did not fit and the compiler said only the peak.
        program: HLO text; "" where it did not fit.
        flops, hbm: the compiler's own counts, loop bodies counted once.
        seconds: it took to compile.
    """

    peak: float
    temporaries: float | None
    program: str
    flops: float
    hbm: float
    seconds: float


def has_compiler() -> bool:
    """Whether libtpu is installed."""
    return importlib.util.find_spec("libtpu") is not None


def devices_of(topology: Slice) -> list[jax.Device]:
    """The devices of a slice, to make a mesh of; they can be compiled for and nothing else.

    Raises:
        UserError: libtpu is missing, or knows no such slice.
    """
    if not has_compiler():
        raise UserError(INSTALL)
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # asks no metadata server: this is no TPU machine
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # its lock guards TPUs, and there are none
    try:
        with _silence():
            return list(topologies.get_topology_desc(platform="tpu", topology_name=str(topology)).devices)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"libtpu has no slice {topology} ({reason}); choose a shape that can be rented.") from None


def compile_for(traced, held: int) -> Compiled:
    """Compile a traced step for the devices of its shardings.

    Args:
        traced: see `abstract_step.trace`.
        held: bytes of its arguments on one chip.

    Raises:
        UserError: the compiler refused it for something else than memory.
    """
    start = time.monotonic()
    try:
        compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:
        peak = _refused_peak(str(error), held)
        if peak is None:
            reason = " ".join(str(error).split())[:400]
            raise UserError(f"the TPU compiler refused the step: {reason}") from None
        return Compiled(peak, None, "", 0.0, 0.0, time.monotonic() - start)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    peak = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return Compiled(
        peak,
        memory.temp_size_in_bytes,
        compiled.as_text(),
        cost.get("flops", 0.0),
        cost.get("bytes accessed", 0.0),
        time.monotonic() - start,
    )


def _refused_peak(message: str, held: int) -> float | None:
    """Bytes that a step which does not fit would need, from either of the ways in which the compiler says so."""
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    if used := re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message):
        return float(used[1]) * units[used[2]]
    if used := re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds", message):
        return float(used[1]) * units[used[2]] + held
    return None


@contextmanager
def _silence() -> Iterator[None]:
    """Keep libtpu's C++ from telling stderr that there is no TPU."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
