"""What every command shares: how it is defined, how it shows its result, how JAX is started for it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aer_jax.files import user_cache
from aer_jax.scale import compilers
from aer_jax.without_torch import without_torch

# (what it does, one line about it, an example) -> its parser
Command = Callable[[Callable[[argparse.Namespace], int | None], str, str], argparse.ArgumentParser]


def prefer_cpu() -> None:
    """Where no accelerator is: what compiles for those of other machines complains when it is asked for devices."""
    devices = [device for kind in ("accel*", "vfio/*", "nvidia*", "dxg") for device in Path("/dev").glob(kind)]
    if not devices and (compilers.TPU.installed or compilers.GPU.installed):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def start_jax() -> None:
    """Compiled steps are kept between processes; a directory of the user's own choosing is respected."""
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax raises what it logs with a traceback
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache() / "jax"))
    prefer_cpu()
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch
    with without_torch():
        from transformers.utils import is_torch_available

        is_torch_available()  # it remembers the answer


def show(args: argparse.Namespace, result: Any, text: str) -> None:
    """One JSON object a line for programs, or the text for people."""
    print(json.dumps(result) if args.json else text, flush=True)
