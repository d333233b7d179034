"""Libraries that import PyTorch wherever it is installed, for seconds and for nothing we use, do without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_torch() -> Iterator[None]:
    """What is imported inside finds no PyTorch, unless this process has it already; outside it is there as ever."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # so Python is told that there is no such module
    try:
        yield
    finally:
        del sys.modules["torch"]
