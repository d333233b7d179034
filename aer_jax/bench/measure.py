"""Measurements inside a bench worker: time, memory, and the device's matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


class Clock:
    """Seconds by the wall since the last lap, and of all cores' work for this process, which others lengthen less."""

    def __init__(self) -> None:
        self._wall, self._work = time.perf_counter(), time.process_time()

    def lap(self) -> dict[str, float]:
        """Times since the last call."""
        wall, work = self._wall, self._work
        self._wall, self._work = time.perf_counter(), time.process_time()
        return {"seconds": self._wall - wall, "cpu_seconds": self._work - work}


def memory_bytes(of: str = "VmHWM") -> int:
    """This process's memory: VmHWM, the most since `reset_peak`, or VmRSS, now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(of))


def reset_peak() -> None:
    """Reset the peak of `memory_bytes`, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def matmul_flops(size: int, multiply: Callable[[], object]) -> float:
    """Operations per second of the fastest of some products of two square matrices; `multiply` waits for its own."""
    multiply()
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
