"""What tests of several folders share: real weights and real speech, where they lie beside the checkout."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from aer_jax.jax_setup import prefer_cpu

prefer_cpu()

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("aer_jax", deadline=None)
hypothesis.settings.load_profile("aer_jax")

# Tests compile much and compute little: XLA's code need not be fast. The processes that tests start inherit this.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # Building fusion emitters takes longer than what they emit saves; later releases know no such flag and abort.
        *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib").startswith("0.10.") else []),
    ]
).strip()

# Each of several test processes has a cache of its own for what librosa has compiled: written by two at once it breaks.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"aer_jax_tests_numba_{worker}"))

# A file goes to one process whole, the longest ones first: begun last they would run alone.
LONG = (
    "tests/test_demo.py",
    "training/test_resume.py",
    "training/test_processes.py",
    "training/test_trainer.py",
    "training/test_meshes.py",
    "bench/test_bench_train.py",
    "inference/test_export.py",
)

BESIDE = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (not item.path.as_posix().endswith(LONG), -tests[item.path]))


@pytest.fixture(scope="session")
def mini_checkpoint() -> Path:
    """A small Qwen2-Audio with pretrained weights (Whisper-base, SmolLM2); built once, in about two minutes."""
    if given := os.environ.get("AER_JAX_MINI"):
        return Path(given)
    path = Path.home() / ".cache" / "aer_jax" / "mini"
    builder = BESIDE / "tools" / "build_mini_checkpoint.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # of several test processes the first one builds it
        if not path.exists():
            if not builder.exists():
                pytest.skip("no real weights: set AER_JAX_MINI to a Qwen2-Audio checkpoint directory")
            built = subprocess.run([sys.executable, builder, path], capture_output=True, text=True)
            if built.returncode:
                last = (built.stderr.splitlines() or ["no message"])[-1]
                pytest.skip(f"the mini checkpoint could not be built: {last}")
    return path


@pytest.fixture(scope="session")
def crema_d_root() -> Path:
    """CREMA-D as its authors publish it, or a part of it."""
    root = BESIDE / "data" / "crema-d"
    if not root.exists():
        pytest.skip(f"no CREMA-D at {root}")
    return root
