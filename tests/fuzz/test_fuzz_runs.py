"""Damaged runs: a checkpoint loads as what was saved or not at all, and a run is not taken for another one."""

import json
import random
import shutil
from pathlib import Path

import jax
import mutations
import numpy as np
import pytest
from flax import nnx
from toy_runs import CHECKPOINT

from aer_jax.config import load_config
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.preparation.prepare import prepare
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.emotion_model import TRAINABLE, load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.predictor import best_checkpoint
from aer_jax.training.run import create_run, open_run

STEPS = (3, 7)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory with a best checkpoint, as training leaves it, and what was saved: nothing is trained."""
    folder = tmp_path_factory.mktemp("runs")
    dataset = prepare(toy.generate(clips=18, speakers=6), folder / "dataset")
    config = load_config(
        None, [f"out={folder / 'run'}", f"data.dataset={dataset.path}", f"model.checkpoint={CHECKPOINT}"]
    )
    mesh = make_mesh(config.mesh)
    jax.set_mesh(mesh)
    run = create_run(config, dataset.classes)
    model = load_model(config.model, dataset.classes, mesh, 0)
    learned = nnx.state(model, nnx.Any(TRAINABLE, HeadStatistics))
    for step in STEPS:
        with Checkpoints(run.path / "best", keep=1) as best:
            best.save(step, {"learned": learned})
            best.wait()
    return run.path, learned


def read(path: Path, learned: nnx.State):
    """As `Predictor` does."""
    run = open_run(path)
    best, step = best_checkpoint(run)
    with best:
        found = best.load(step, {"learned": learned})["learned"]
    return run.classes, run.config.model, run.config.data, step, [np.asarray(leaf) for leaf in jax.tree.leaves(found)]


def damage(folder: Path, file: Path, rng: random.Random) -> str:
    way = rng.random()
    if way < 0.06:
        file.unlink()
        return "gone"
    if way < 0.1:
        other = rng.choice([other for other in folder.rglob("*") if other.is_file()])
        shutil.copy(other, folder / "kept")
        shutil.move(file, other)
        shutil.move(folder / "kept", file)
        return f"exchanged with {other.name}"
    content = file.read_bytes()
    if not content:
        what, data = "something", rng.randbytes(10)
    elif way < 0.4 and file.name == "environment.json":
        what, data = mutations.change_value(json.loads(content), rng)
    else:
        what, data = ("flip", mutations.flip(content, rng)) if way < 0.6 else mutations.damage(content, rng)
    file.write_bytes(data)
    return what


def test_runs(run, seeds, tally, tmp_path):
    whole, learned = run
    truth = read(whole, learned)
    # Of the checkpoint everything is compared; settings that no prediction depends on are the user's to change.
    for seed in seeds(600):
        rng = random.Random(seed)
        folder = Path(shutil.copytree(whole, tmp_path / "run"))
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        file = rng.choice([*files, folder / "environment.json", folder / "config.yaml"])
        what = damage(folder, file, rng)

        def judge(found) -> str | None:
            same = found[:4] == truth[:4] and all(np.array_equal(a, b) for a, b in zip(found[4], truth[4], strict=True))
            return "" if same else f"another run: {found[:4]}"

        tally.record(f"seed {seed}, {file.relative_to(folder)} {what}", lambda f=folder: read(f, learned), judge)
        shutil.rmtree(folder)
