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


def test_added_steps_have_a_schedule_of_their_own():
    """Those before stay as they were, to the bit."""
    extended, first, added = schedule(0.1, 0.2, 10, 30), schedule(0.1, 0.2, 10), schedule(0.1, 0.2, 20)
    rates = [float(extended(step)) for step in range(30)]
    assert rates == [float(first(step)) for step in range(10)] + [float(added(step)) for step in range(20)]


@pytest.mark.parametrize("decay_all", [False, True])
def test_ten_steps_are_torchs(decay_all):
    rng = np.random.default_rng(0)
    start = {
        "base": {"lora": rng.normal(size=(6, 4))},
        "emotion_head": {
            "linear": {"bias": rng.normal(size=3), "kernel": rng.normal(size=(4, 3))},
            "norm1": {"bias": rng.normal(size=4), "scale": rng.normal(size=4)},
        },
    }
    gradients = [jax.tree.map(lambda a: rng.normal(0, 1, a.shape), start) for _ in range(STEPS)]
    norms = [math.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient))) for gradient in gradients]
    assert min(norms) > CONFIG.clip_norm, "clipping must act"

    parameters = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in jax.tree.leaves(start)]
    lora, bias, kernel, norm_bias, norm_scale = parameters
    decayed = [bias, kernel, norm_bias, norm_scale] if decay_all else [kernel]
    theirs = torch.optim.AdamW(
        [
            {"params": [lora], "lr": CONFIG.lr},
            {"params": decayed, "lr": CONFIG.head_lr},
            {"params": [] if decay_all else [bias, norm_bias, norm_scale], "lr": CONFIG.head_lr, "weight_decay": 0.0},
        ],
        weight_decay=CONFIG.weight_decay,
    )
    rate = torch.optim.lr_scheduler.LambdaLR(theirs, torch_schedule)

    ours = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), start)
    optimizer = make_optimizer(CONFIG, STEPS, decay_all=decay_all)
    moments = optimizer.init(ours)
    for gradient in gradients:
        for parameter, g in zip(parameters, jax.tree.leaves(gradient), strict=True):
            parameter.grad = torch.tensor(g)
        torch.nn.utils.clip_grad_norm_(parameters, CONFIG.clip_norm)
        theirs.step()
        rate.step()
        updates, moments = optimizer.update(jax.tree.map(jnp.asarray, gradient), moments, ours)
        ours = optax.apply_updates(ours, updates)
        for one, other in zip(jax.tree.leaves(ours), parameters, strict=True):
            np.testing.assert_allclose(one, other.detach(), atol=1e-5)


def test_decay_on_everything_is_bit_for_bit_that_of_earlier_versions():
    """Their optimizer was optax.adamw; a run that they began goes on with the same state and the same numbers."""
    rng = np.random.default_rng(0)
    parameters = {"base": {"lora": jnp.array(rng.normal(size=(6, 4)))}, "emotion_head": {"bias": jnp.ones(3)}}
    before = optax.chain(
        optax.clip_by_global_norm(CONFIG.clip_norm),
        optax.multi_transform(
            {
                name: optax.adamw(schedule(peak, CONFIG.warmup, STEPS), weight_decay=CONFIG.weight_decay)
                for name, peak in (("adapters", CONFIG.lr), ("head", CONFIG.head_lr))
            },
            {"base": {"lora": "adapters"}, "emotion_head": {"bias": "head"}},
        ),
    )
    now = make_optimizer(CONFIG, STEPS, decay_all=True)
    states = [optimizer.init(parameters) for optimizer in (before, now)]
    for _ in range(3):
        gradient = jax.tree.map(lambda a: jnp.array(rng.normal(size=a.shape)), parameters)
        old, states[0] = before.update(gradient, states[0], parameters)
        new, states[1] = now.update(gradient, states[1], parameters)
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
        jax.tree.map(np.testing.assert_array_equal, (old, states[0]), (new, states[1]))


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
