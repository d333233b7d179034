"""Multi-process runs: start-up, which rows a process holds, and which process writes.

Every process of a run executes the same steps on its own devices. What is random is drawn from the step's number, what
is on disk is written by the first process, and arrays that live on many hosts are fetched by all of them together.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from orbax.checkpoint.multihost import get_barrier_sync_fn

from aer_jax.data.batching.batches import Host
from aer_jax.errors import Unfinished, UserError
from aer_jax.models.sharding import BATCH, row_blocks
from aer_jax.training.signals import Stopped

COORDINATOR, INDEX, COUNT = "AER_JAX_COORDINATOR", "AER_JAX_PROCESS_ID", "AER_JAX_PROCESS_COUNT"
DETECT = "AER_JAX_DISTRIBUTED"
# How JAX's messages begin or what they name when another process does not answer.
GONE = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "Gloo", "coordination service")
BARRIER_SECONDS = 4 * 3600  # a dead process is found sooner; a late one may be reading a corpus' features
HEARTBEAT_SECONDS = 60  # without one from a process, JAX ends the others


def join() -> None:
    """Join the other processes of the run, where the environment says that there are any.

    - AER_JAX_COORDINATOR=host:port, AER_JAX_PROCESS_ID and AER_JAX_PROCESS_COUNT, by hand or by a script of one's own;
    - a Slurm step of several tasks, a TPU pod that lists its workers, or AER_JAX_DISTRIBUTED=1: JAX finds out itself.

    Raises:
        UserError: some of the three variables are missing or no numbers, or the others cannot be reached.
    """
    given = {name: os.environ.get(name, "") for name in (COORDINATOR, INDEX, COUNT)}
    options: dict[str, Any] = {}
    if any(given.values()):
        count, index = given[COUNT], given[INDEX]
        if not given[COORDINATOR] or not (count.isdigit() and index.isdigit() and int(index) < int(count)):
            values = ", ".join(f"{name}={value or '(not set)'}" for name, value in given.items())
            raise UserError(
                f"{values} do not say which process this is; set all three, for instance host:1234, 0 and 2."
            )
        options = {"coordinator_address": given[COORDINATOR], "num_processes": int(count), "process_id": int(index)}
    elif not _launcher_detected():
        return
    try:
        jax.distributed.initialize(**options, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:300].rstrip(".")
        raise Unfinished(f"cannot join the other processes of this run ({why}); start all of them anew.") from None
    _explain_abort()


def _explain_abort() -> None:
    """Have a process that JAX aborts end with a sentence and the exit code of a run that can go on.

    The first process holds JAX's coordination service: once its socket closes, a thread of JAX's C++ aborts every other
    process, and nothing that JAX offers prevents it. Python's own handlers would wait for the main thread, which waits
    for the dead; one set through libc runs in the thread that aborts.
    """
    who = f"process {jax.process_index()} of {jax.process_count()}"
    lost = "another process" if is_first() else "the first process"
    sentence = (
        f"\naer-jax: {who} was ended by JAX, for the reason above; most likely {lost} is gone. See in its "
        "log why, then start all of them again with --resume.\n"
    )

    def on_abort(number: int) -> None:
        os.write(2, sentence.encode())
        os._exit(Unfinished.exit_code)

    global _abort_handler
    _abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    ctypes.CDLL(None).signal(signal.SIGABRT, _abort_handler)


_abort_handler: Any = None  # libc holds no reference


def _launcher_detected() -> bool:
    environment = os.environ
    slurm = "SLURM_PROCID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    return slurm or pod or environment.get(DETECT, "") not in ("", "0")


_others_lost = False  # whether this process ends without the others


@contextmanager
def joined() -> Iterator[bool]:
    """The block runs in all processes of the run together; it is given whether this one is the first.

    Raises:
        UserError: see `join`.
        Unfinished: the others were lost on the way.
    """
    global _others_lost
    join()
    try:
        yield is_first()
    except Stopped:  # by all of them
        raise
    except BaseException as error:
        _others_lost = True
        reason = str(error).split("\n")[0][:200]
        lost = isinstance(error, jax.errors.JaxRuntimeError) and any(sign in reason for sign in GONE)
        if not lost or jax.process_count() == 1:
            raise
        raise Unfinished(
            f"process {jax.process_index()} of {jax.process_count()} lost the others ({reason}); see in their logs "
            "which one ended and why, then start all of them again with --resume."
        ) from None


def leave(code: int) -> int:
    """Leave the run with this process's exit code; the last call of a process.

    JAX's own goodbye waits for the others; where there may be none, it would end with a stack trace.
    """
    if _others_lost and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def is_first() -> bool:
    """Whether this is process 0, which writes log, settings and progress."""
    return jax.process_index() == 0


@contextmanager
def first_before_others(what: str) -> Iterator[None]:
    """The first process runs the block, then the others do, and find in place what it left on disk."""
    if not is_first():
        barrier(what)
    yield
    if is_first():
        barrier(what)


def barrier(what: str) -> None:
    """Wait for all processes of the run; `what` is a name used once.

    JAX's coordination service keeps the list. Where processes wait for one another inside a collective, as
    `sync_global_devices` has them do, CPUs give up after 30 s, and on a busy machine one may be as late as that.
    """
    if jax.process_count() > 1:
        get_barrier_sync_fn()(key=what, timeout_ms=1000 * BARRIER_SECONDS)


def host_of(mesh: Mesh) -> Host:
    """Which rows of every batch the devices of this process hold.

    Raises:
        UserError: they are not side by side.
    """
    rows = row_blocks(mesh)
    where = NamedSharding(mesh, BATCH)
    parts = where.devices_indices_map((rows,))
    mine = sorted({parts[device][0].indices(rows)[:2] for device in where.addressable_devices})
    count, first = len(mine), mine[0][0]
    if first % count or mine[-1][1] != first + count:
        raise UserError(
            "mesh: the rows of a batch that fall to one process are not side by side; exchange the sizes of its axes."
        )
    return Host(first // count, rows // count)


def fetch(arrays: Any) -> Any:
    """Whole arrays on every host; a collective, so all processes must call it."""
    if jax.process_count() == 1:
        return jax.device_get(arrays)
    with jax.transfer_guard("allow"):
        return jax.tree.map(lambda a: np.asarray(multihost_utils.process_allgather(a, tiled=True)), arrays)
