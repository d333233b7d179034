"""Ten steps beside torch, and the schedule at its corners."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from aer_jax.config import TrainConfig
from aer_jax.training.optimizer import make_optimizer, schedule

CONFIG = TrainConfig(lr=2e-3, head_lr=5e-2, weight_decay=0.03, warmup=0.3, clip_norm=0.7)
STEPS = 10


def torch_schedule(step: int) -> float:
    """Linear warm-up and cosine, written as `transformers.get_cosine_schedule_with_warmup` has them."""
    warmup = round(CONFIG.warmup * STEPS)
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


def test_ten_steps_are_torchs():
    rng = np.random.default_rng(0)
    start = {"base": {"lora": rng.normal(size=(6, 4))}, "emotion_head": {"kernel": rng.normal(size=(4, 3))}}
    gradients = [jax.tree.map(lambda a: rng.normal(0, 1, a.shape), start) for _ in range(STEPS)]
    norms = [math.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient))) for gradient in gradients]
    assert min(norms) > CONFIG.clip_norm, "clipping must act"

    lora, kernel = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in jax.tree.leaves(start))
    theirs = torch.optim.AdamW(
        [{"params": [lora], "lr": CONFIG.lr}, {"params": [kernel], "lr": CONFIG.head_lr}],
        weight_decay=CONFIG.weight_decay,
    )
    rate = torch.optim.lr_scheduler.LambdaLR(theirs, torch_schedule)

    ours = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), start)
    optimizer = make_optimizer(CONFIG, STEPS)
    moments = optimizer.init(ours)
    for gradient in gradients:
        for parameter, g in zip((lora, kernel), jax.tree.leaves(gradient), strict=True):
            parameter.grad = torch.tensor(g)
        torch.nn.utils.clip_grad_norm_([lora, kernel], CONFIG.clip_norm)
        theirs.step()
        rate.step()
        updates, moments = optimizer.update(jax.tree.map(jnp.asarray, gradient), moments, ours)
        ours = optax.apply_updates(ours, updates)
        np.testing.assert_allclose(ours["base"]["lora"], lora.detach(), atol=1e-5)
        np.testing.assert_allclose(ours["emotion_head"]["kernel"], kernel.detach(), atol=1e-5)


@pytest.mark.parametrize("still", ["lr", "head_lr"])
def test_each_group_has_its_rate(still):
    config = dataclasses.replace(CONFIG, **{still: 0.0})
    parameters = {"base": {"lora": jnp.ones(3)}, "emotion_head": {"kernel": jnp.ones(3)}}
    optimizer = make_optimizer(config, STEPS)
    moments = optimizer.init(parameters)
    for _ in range(2):  # the first step has rate 0
        updates, moments = optimizer.update(jax.tree.map(jnp.ones_like, parameters), moments, parameters)
    moved = {"lr": updates["base"]["lora"], "head_lr": updates["emotion_head"]["kernel"]}
    assert not moved.pop(still).any()
    assert moved.popitem()[1].all()


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.15, 0.5, 1.0])
def test_schedule(steps, warmup):
    rate = schedule(3e-4, warmup, steps)
    rates = np.array([float(rate(step)) for step in range(steps + 1)])
    top = int(rates.argmax())
    assert rates[top] == pytest.approx(3e-4)
    assert top == min(max(1, round(warmup * steps)), steps - 1)
    assert (np.diff(rates[: top + 1]) > 0).all(), "rises to the peak"
    assert (np.diff(rates[top:]) < 0).all(), "and falls from there"
    assert rates[-1] == pytest.approx(0, abs=1e-10)


def test_schedule_of_a_single_step():
    assert float(schedule(1.0, 0.15, 1)(0)) == 1.0
