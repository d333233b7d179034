"""The toy model, split, with adapters and head that have already learned something, and one batch."""

import functools
from dataclasses import dataclass

import jax
import numpy as np
import optax
from toy_runs import CHECKPOINT

from aer_jax.config import LoraConfig, MeshConfig, ModelConfig
from aer_jax.data.batching.batches import evaluation_batches
from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.emotion_model import load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training.step import init_state, make_predict_step, make_train_step, split_model, to_device


@dataclass(eq=False, repr=False)
class Kit:
    """A model in parts; `step` makes one with plain gradient descent at rate 1, so parameters move by the gradient."""

    parts: tuple
    mesh: jax.sharding.Mesh

    @functools.cached_property
    def predict(self):
        """numpy batch -> distributions on the host."""
        step = make_predict_step(self.parts.graphdef)
        return lambda batch: np.asarray(
            jax.nn.softmax(step(self.parts.trainable, self.parts.frozen, to_device(batch, self.mesh)))
        )

    @functools.cache  # noqa: B019
    def compiled(self, seed):
        """The step, kept so that it is compiled once a shape."""
        return make_train_step(
            self.parts.graphdef, optax.sgd(1.0), rate=optax.constant_schedule(1.0), entropy_weight=0.0, seed=seed
        )

    def step(self, batch, microbatch=8, *, seed=0, at=0):
        """(trainables after the step, metrics), on the host."""
        copy = jax.tree.map(lambda a: a.copy(), self.parts.trainable)  # a step takes its state for itself
        state = init_state(self.parts._replace(trainable=copy), optax.sgd(1.0), self.mesh)
        state = state._replace(step=state.step + at)
        state, metrics = self.compiled(seed)(state, self.parts.frozen, to_device(batch, self.mesh, microbatch))
        return jax.device_get((state.trainable, metrics))

    def gradient(self, batch, microbatch=8, **keywords):
        """(flat gradient, loss)."""
        after, metrics = self.step(batch, microbatch, **keywords)
        moved = jax.tree.map(np.subtract, jax.device_get(self.parts.trainable), after)
        return np.concatenate([np.ravel(a) for a in jax.tree.leaves(moved)]), float(metrics["loss"])


def make_kit(checkpoint=CHECKPOINT, *, dropout=True):
    """A kit of 4 classes; adapters' B and the head's kernel, zero at the start, are drawn."""
    lora = LoraConfig() if dropout else LoraConfig(dropout=0.0)
    config = ModelConfig(checkpoint=str(checkpoint), remat="none", lora=lora)
    mesh = make_mesh(MeshConfig())
    jax.set_mesh(mesh)
    model = load_model(config, "abcd", mesh, 0)
    if not dropout:
        model.emotion_head.dropout = 0.0
    parts = split_model(model)
    rng = np.random.default_rng(0)

    def drawn(leaf):
        return leaf + jax.device_put(0.05 * rng.standard_normal(leaf.shape, np.float32), leaf.sharding)

    return Kit(parts._replace(trainable=jax.tree.map(drawn, parts.trainable)), mesh)


def make_batch(dataset, checkpoint, rows=8, **keywords):
    """The first training clips with random targets, numpy."""
    ids = dataset.splits["train"][:rows]
    targets_nk = np.random.default_rng(1).dirichlet(np.ones(len(dataset.classes)), len(ids))
    prompt = PromptEncoder(checkpoint, dataset.classes, **keywords)
    return next(iter(evaluation_batches(ids, dataset, prompt, targets_nk, shapes=1, batch=rows, max_seconds=30.0)))
