"""Ten steps on each mesh of fake devices that is named, and what came out in a file; test_meshes.py runs this."""

import sys

import jax
import numpy as np
from kit import make_batch
from toy_runs import CHECKPOINT, toy_dataset

from aer_jax.config import LoraConfig, MeshConfig, ModelConfig, TrainConfig
from aer_jax.data.dataset import open_dataset
from aer_jax.models.emotion_model import load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training.optimizer import make_optimizer, schedule
from aer_jax.training.step import init_state, make_train_step, split_model, to_device

STEPS = 10
MICROBATCH = 8


def train(sizes, batch, head):
    """Losses and final trainables, flat, of ten steps over two microbatches of unequal weight; dropout is on."""
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    jax.set_mesh(mesh)
    model = load_model(ModelConfig(checkpoint=str(CHECKPOINT), head=head, lora=LoraConfig()), "abcd", mesh, 0)
    parts = split_model(model)
    settings = TrainConfig(lr=3e-3, head_lr=3e-3)
    optimizer, rate = make_optimizer(settings, STEPS), schedule(settings.lr, settings.warmup, STEPS)
    state = init_state(parts, optimizer, mesh)
    step = make_train_step(parts.graphdef, optimizer, rate=rate, entropy_weight=0.08, seed=0)
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, parts.frozen, to_device(batch, mesh, MICROBATCH))
        losses.append(float(metrics["loss"]))
    divided = sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves((state, parts.frozen)))
    flat = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(state.trainable)}
    return losses, flat, divided


if __name__ == "__main__":
    out, head, *meshes = sys.argv[1:]
    batch = make_batch(open_dataset(toy_dataset()), CHECKPOINT, rows=16)
    batch["weight"][[3, 12, 13, 14]] = 0
    for name in meshes:
        losses, flat, divided = train(tuple(map(int, name.split("x"))), batch, head)
        np.savez(f"{out}/{name}.npz", losses=losses, divided=divided, **flat)
