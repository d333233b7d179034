"""The toy dataset and runs on it, for tests of the commands and of training; made once a session."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from aer_jax.config import load_config
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.preparation.prepare import prepare
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.trainer import train

CHECKPOINT = Path(__file__).resolve().parents[1] / "aer_jax" / "demo" / "checkpoint"
FOLDER = tempfile.TemporaryDirectory(prefix="aer_jax_tests_")
HERE = Path(FOLDER.name)

# One cache of compiled steps for this process and those that it starts.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(HERE / "jax")
jax.config.update("jax_compilation_cache_dir", str(HERE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


@functools.cache
def toy_dataset() -> Path:
    """32 training clips of 4 speakers, 8 validation clips, 8 test clips."""
    return prepare(toy.generate(clips=48, speakers=6), HERE / "dataset").path


def settings(out: Path, *more: str) -> list[str]:
    """A run of 3 epochs of 4 steps with everything on that is random: DiME-Aug, augmentation, dropout."""
    return [
        f"out={out}",
        f"data.dataset={toy_dataset()}",
        f"model.checkpoint={CHECKPOINT}",
        "model.remat=none",
        "data.shapes=1",
        "data.augment=0.5",
        "data.dime_aug.ratio=0.5",
        "train.epochs=3",
        "train.batch=8",
        "train.microbatch=4",
        "train.lr=3e-3",
        *more,
    ]


def config(out: Path, *more: str):
    """The same as a Config."""
    return load_config(None, settings(out, *more))


@functools.cache
def trained_run() -> Path:
    """A finished run, evaluated on the test split; not to be written to."""
    run = train(config(HERE / "trained"))
    evaluate_run(run.path)
    return run.path


def aer_jax(*args: object, **keywords) -> subprocess.CompletedProcess:
    """A command in a process of its own."""
    command = [sys.executable, "-m", "aer_jax", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **keywords)


def start(*args: object, env: dict[str, str] | None = None) -> subprocess.Popen:
    """A command in a process of its own, not waited for; `env` is added to the environment."""
    command = [sys.executable, "-m", "aer_jax", *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | (env or {}), **pipes)


def log_lines(run: Path) -> list[dict]:
    """metrics.jsonl without what the clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def saved_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Every array of the latest checkpoint in `best/` or `checkpoints/`, by its path; on one device, wherever saved."""
    from orbax.checkpoint import v1 as ocp

    path = folder.absolute() / str(Checkpoints(folder).latest)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    saved = ocp.checkpointables_metadata(path).metadata["learned"]
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), saved)
    loaded = ocp.load_checkpointables(path, {"learned": like})
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(loaded)}
