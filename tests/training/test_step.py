"""One step: what moves, by how much, and what it depends on."""

import jax
import numpy as np
import optax
import pytest
import toy_runs
from flax import nnx

from aer_jax.models.emotion_model import TRAINABLE
from aer_jax.training.step import init_state

ROWS = ("audio", "audio_samples", "tokens", "token_mask", "target", "weight", "row")


def far(one, other):
    """Norm of the difference, relative."""
    return np.linalg.norm(one - other) / np.linalg.norm(one)


def test_accumulation_is_unbiased(still_kit, batch):
    """8 rows of which 3 are padding: microbatches of unequal weight, one of them without any."""
    padded = batch | {"weight": np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)}
    whole, loss = still_kit.gradient(padded, 8)
    for microbatch in (4, 2):
        parts, parts_loss = still_kit.gradient(padded, microbatch)
        assert far(whole, parts) < 1e-6
        assert parts_loss == pytest.approx(loss, rel=1e-6)


def test_a_clip_that_counts_twice_is_a_clip_that_is_there_twice(still_kit, batch):
    twice = batch | {name: np.concatenate([batch[name][:6], batch[name][:2]]) for name in ROWS}
    weight = {"weight": np.array([2, 2, 1, 1, 1, 1, 0, 0], np.float32)}
    (once, once_loss), (double, double_loss) = still_kit.gradient(batch | weight), still_kit.gradient(twice)
    assert far(double, once) < 1e-6 and once_loss == pytest.approx(double_loss, rel=1e-6)


def test_fillers_change_nothing(still_kit, batch):
    weight = {"weight": np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)}
    others = batch | {name: np.concatenate([batch[name][:5], batch[name][:3]]) for name in ROWS}
    assert far(still_kit.gradient(batch | weight)[0], still_kit.gradient(others | weight)[0]) < 1e-6


def test_only_adapters_and_head_move(kit, batch):
    after, _ = kit.step(batch, 4)
    before = jax.device_get(kit.parts.trainable)
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(after)}
    assert all("lora" in name or "emotion_head" in name for name in names)
    assert len(names) == 2 * 7 + 2, "A and B of q k v o and q k v, the head's kernel and bias"
    for (path, was), now in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True):
        assert (was != now).any(), jax.tree_util.keystr(path)


def test_frozen_base_is_not_in_the_optimizer(kit):
    state = init_state(kit.parts, optax.adamw(1e-3), kit.mesh)
    trained = sum(leaf.size for leaf in jax.tree.leaves(kit.parts.trainable))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer))
    assert moments == 2 * trained + 1, "two moments a trainable, and a count"
    assert not any(TRAINABLE(path, value) for path, value in nnx.to_flat_state(kit.parts.frozen))


def test_frozen_base_is_not_in_a_checkpoint():
    run = toy_runs.trained_run()
    for folder, others in (("best", 0), ("checkpoints", 2)):
        arrays = toy_runs.saved_arrays(run / folder)
        base = [name for name in arrays if "['base']" in name]
        assert base and all("['lora']" in name for name in base)
        # 21,764 trainables, with two moments in a checkpoint; the base has over 400,000 parameters.
        assert sum(a.size for a in arrays.values()) < (1 + others) * 25_000


def test_saved_optimizer_is_not_blank():
    arrays = toy_runs.saved_arrays(toy_runs.trained_run() / "checkpoints")
    moments = {name: a for name, a in arrays.items() if "['nu']" in name}
    assert moments and all(a.any() for a in moments.values())


def test_dropout_differs_by_step_seed_and_microbatch_alone(kit, batch):
    first, _ = kit.gradient(batch, 4)
    again, _ = kit.gradient(batch, 4)
    np.testing.assert_array_equal(first, again)
    assert far(first, kit.gradient(batch, 4, at=1)[0]) > 0.05
    assert far(first, kit.gradient(batch, 4, seed=1)[0]) > 0.05

    twice = batch | {name: np.repeat(batch[name][:4], 2, axis=0) for name in ROWS}
    one, other = (kit.gradient(twice | {"weight": np.tile(np.float32(w), 4)}, 4)[0] for w in ([1, 0], [0, 1]))
    assert far(one, other) > 0.05, "the same rows in another microbatch draw other masks"


def test_prediction_has_no_dropout(kit, still_kit, batch):
    np.testing.assert_allclose(kit.predict(batch), still_kit.predict(batch), atol=1e-6)


def test_metrics(still_kit, batch):
    gradient, loss = still_kit.gradient(batch)
    _, metrics = still_kit.step(batch)
    assert metrics["grad_norm"] == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    assert metrics["lr"] == 1.0
    assert 0 < loss < np.log(2)
