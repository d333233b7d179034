"""Start-up of JAX and transformers for every command: devices, compilation cache, no PyTorch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aer_jax.devices import PLUGINS, accelerators, has_plugin
from aer_jax.files.atomic import user_cache


def prefer_cpu() -> None:
    """JAX_PLATFORMS=cpu, unless set, where a plugin for accelerators is installed and no accelerator is there.

    Such plugins are installed to compile; asked for devices they complain.
    """
    here = accelerators()[0] != "cpu" or Path("/dev/dxg").exists()  # Windows' GPU, seen from its Linux
    if not here and any(map(has_plugin, PLUGINS)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def start_jax(*, compile_only: bool = False) -> None:
    """Settings that must be made before JAX is imported. A compilation cache of the user's own is respected.

    Args:
        compile_only: for devices that are absent: whatever is here is not used, and no program is kept, for it could
            not be read back.
    """
    if compile_only:
        os.environ.update(JAX_PLATFORMS="cpu", JAX_ENABLE_COMPILATION_CACHE="false")
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax raises what it logs with a traceback
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache() / "jax"))
    prefer_cpu()
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch
    with without_torch():
        from transformers.utils import is_torch_available

        is_torch_available()  # it remembers the answer


@contextmanager
def without_torch() -> Iterator[None]:
    """Hide PyTorch from the imports inside: some libraries import it wherever it is installed, which takes seconds."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # so Python is told that there is no such module
    try:
        yield
    finally:
        del sys.modules["torch"]
