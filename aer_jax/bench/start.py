"""From the command to the first training step: with empty caches, and once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aer_jax.bench.tables import markdown
from aer_jax.errors import UserError
from aer_jax.worker_process import OFFLINE

PARTS = {
    "python": "Python starts",
    "import": "import",
    "load": "load the base",
    "compile": "trace and compile, or read from the cache",
    "step": "the first step",
    "other": "data, run directory and the rest",
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
    starts = []
    with tempfile.TemporaryDirectory(prefix="aer_jax_bench_") as folder:
        for number in range(2):
            caches = {"XDG_CACHE_HOME": folder, "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "jax")}
            starts.append(_start([*settings, f"out={folder}/run{number}"], caches))
    first, second = starts
    return {
        "bench": "start",
        "settings": list(settings),
        "first": first,
        "second": second,
        "ratio": second["all"] / first["all"],
    }


def _start(settings: list[str], environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "aer_jax.bench.workers.first_step", repr(time.time()), *settings]
    done = subprocess.run(
        command, env=os.environ | OFFLINE | environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        words = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise UserError(f"the run does not start: {words[-1] if words else done.returncode}")
    seconds = json.loads(done.stdout)
    seconds["other"] = seconds["all"] - sum(seconds.get(part, 0.0) for part in PARTS if part not in ("other", "all"))
    return seconds


def table(result: dict[str, Any]) -> str:
    """What `bench_start` returned, as a table in Markdown."""
    rows = [
        {"seconds": name, **{start: f"{result[start].get(part, 0.0):.1f}" for start in ("first", "second")}}
        for part, name in PARTS.items()
    ]
    return f"{markdown(rows)}\n\nthe second start takes {result['ratio']:.2f} of the first"
