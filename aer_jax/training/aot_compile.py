"""Ahead-of-time compilation: one program per batch shape, so that nothing compiles during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from tqdm import tqdm

from aer_jax.training.distributed import barrier, is_first

Abstract = dict[str, jax.ShapeDtypeStruct]


def compile_ahead(
    function: jax.stages.Wrapped, arguments: Sequence[Any], batches: Sequence[Abstract], what: str
) -> Callable:
    """Compile a jitted function for every batch shape.

    Steps then take what they take, a program that does not fit the device fails before the first of them, and the
    processes of a run, which need not compile equally fast, begin together: on CPUs a collective waits 30 s for them.

    Args:
        function: jitted; its last argument is a batch.
        arguments: those before it, or arrays like them.
        batches: one of each shape, see `abstract`.
        what: the name on the progress bar.

    Returns:
        the function, for batches of these shapes alone.
    """
    programs = {}
    for batch in tqdm(batches, f"compile {what}", unit="shape", delay=2, leave=False, disable=not is_first()):
        programs[_shape(batch)] = function.lower(*arguments, batch).compile()
    barrier(f"compile {what}")
    return lambda *arguments: programs[_shape(arguments[-1])](*arguments)


def abstract(batch: dict[str, jax.Array]) -> Abstract:
    """Shapes, types and shardings of a batch."""
    return {name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding) for name, a in batch.items()}


def _shape(batch: dict[str, Any]) -> tuple:
    return batch["audio"].shape, batch["tokens"].shape
