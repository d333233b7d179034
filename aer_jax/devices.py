"""Accelerators of this machine, and their assignment to processes that run side by side."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

from aer_jax.errors import UserError

# Any one of them lets JAX use such devices, and compile for them where there are none.
PLUGINS = {"tpu": ("libtpu",), "cuda": ("jax_cuda13_plugin", "jax_cuda12_plugin")}


def has_plugin(kind: str) -> bool:
    """Whether JAX has its plugin for "tpu" or "cuda"."""
    return any(map(importlib.util.find_spec, PLUGINS[kind]))


def gpus(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return _numbered(devices, "nvidia")
    return [id for id in visible.split(",") if id.strip() not in ("", "-1")]


def accelerators(devices: Path = Path("/dev"), environment: Mapping[str, str] = os.environ) -> tuple[str, list[str]]:
    """What JAX will use: ("cuda" or "tpu", their ids), or ("cpu", []).

    Nothing is started: a TPU serves only the process that asks first.
    """
    if environment.get("JAX_PLATFORMS", "") == "cpu":
        return "cpu", []
    if ids := gpus(devices, environment):
        return "cuda", ids
    if "CUDA_VISIBLE_DEVICES" in environment:
        return "cpu", []
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
    matches = [re.fullmatch(rf"{prefix}([0-9]+)", path.name) for path in folder.glob(f"{prefix}*")]
    return [str(n) for n in sorted(int(match[1]) for match in matches if match)]
