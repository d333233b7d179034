"""Which accelerators this machine has, and how they are shared out to processes that run side by side."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from aer_jax.errors import UserError


def accelerators(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> tuple[str, list[str]]:
    """("cuda" or "tpu", their ids), or ("cpu", []).

    Nothing is started: a TPU serves only the process that asks first.
    """
    if environment.get("JAX_PLATFORMS", "") == "cpu":
        return "cpu", []
    if "CUDA_VISIBLE_DEVICES" in environment:
        ids = [id for id in environment["CUDA_VISIBLE_DEVICES"].split(",") if id.strip() not in ("", "-1")]
        return ("cuda", ids) if ids else ("cpu", [])
    if gpus := _numbered(devices, "nvidia"):
        return "cuda", gpus
    chips = _numbered(devices, "accel") or _numbered(devices / "vfio", "")
    return ("tpu", chips) if chips else ("cpu", [])


def shares(kind: str, ids: list[str], parallel: int) -> list[dict[str, str]]:
    """The environment of each of the processes that run side by side, so that no two see the same accelerator.

    Args:
        kind, ids: as `accelerators` gives them.
        parallel: how many processes; 0 is one for each accelerator, on a CPU one.

    Raises:
        UserError: the accelerators cannot be divided so.
    """
    parallel = parallel or max(1, len(ids))
    if parallel == 1 or kind == "cpu":
        return [{}] * parallel
    if len(ids) % parallel or (kind == "tpu" and parallel != len(ids)):
        fits = f"1 or {len(ids)}" if kind == "tpu" else f"a divisor of {len(ids)}"
        raise UserError(f"parallel is {parallel}, and {len(ids)} accelerators are here; choose {fits}.")
    each = len(ids) // parallel
    parts = [ids[i : i + each] for i in range(0, len(ids), each)]
    if kind == "cuda":
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
    alone = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
    return [alone | {"TPU_VISIBLE_CHIPS": str(i)} for i in range(len(ids))]


def _numbered(folder: Path, prefix: str) -> list[str]:
    found = [re.fullmatch(rf"{prefix}([0-9]+)", path.name) for path in folder.glob(f"{prefix}*")]
    return [str(n) for n in sorted(int(match[1]) for match in found if match)]
