"""Time from the command to the first training step, with empty caches and again with full ones."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aer_jax.bench.driver import BenchWorker

PARTS = {
    "python": "Python starts",
    "import": "import",
    "load": "load the base",  # in older results
    "setup": "data, run directory, load the base",
    "compile": "trace and compile, or read from the cache",
    "step": "the first step",
    "other": "the rest",
    "all": "all",
}


def bench_start(settings: Sequence[str]) -> dict[str, Any]:
    """Start a run twice, with a cache of compiled programs that is empty at first; files may lie in memory already.

    Args:
        settings: of the run, key=value; `out` is temporary.

    Returns:
        first, second: seconds by part, see `PARTS`; ratio: second / first.

    Raises:
        UserError: the run does not start.
    """
    with tempfile.TemporaryDirectory(prefix="aer_jax_bench_") as folder:
        caches = {"XDG_CACHE_HOME": folder, "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "jax")}
        first, second = (_start([*settings, f"out={folder}/run{number}"], caches) for number in range(2))
    ratio = second["all"] / first["all"]
    return {"bench": "start", "settings": list(settings), "first": first, "second": second, "ratio": ratio}


def _start(settings: list[str], environment: dict[str, str]) -> dict[str, float]:
    with BenchWorker("first_step", {"started": time.time(), "settings": settings}, environment) as worker:
        seconds = worker.about
    return seconds | {"other": 2 * seconds["all"] - sum(seconds.values())}


def table(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of what `bench_start` returned."""
    starts = ("first", "second")
    rows = [
        {"seconds": name, **{start: f"{result[start][part]:.1f}" for start in starts}}
        for part, name in PARTS.items()
        if all(part in result[start] for start in starts)
    ]
    return rows, f"the second start takes {result['ratio']:.0%} of the first"
