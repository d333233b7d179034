"""A prompt's common beginning, read once for all rows, gives what reading it in every row gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_qwen2_audio import AUDIO_TOKEN, make_batch, prompt, voice

from aer_jax.config import LoraConfig, MeshConfig, ModelConfig
from aer_jax.models.emotion_model import TRAINABLE, load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training.objective import objective

PREFIX = np.array([11, 42, 7, 93, 5, 68, 23, 55, 31], np.int32)
SECONDS = (0.3, 1.1, 0.7)
TARGETS = np.random.default_rng(0).dirichlet(np.ones(4), len(SECONDS)).astype(np.float32)


def batches(side: str, length: int):
    """The same rows with the first `length` tokens of the prefix apart, and with all of it in each row."""
    clips = [voice(s, seed) for seed, s in enumerate(SECONDS)]
    own = [prompt(len(clip), 3 + 4 * b, AUDIO_TOKEN, b) for b, clip in enumerate(clips)]
    shared = make_batch(clips, [[*PREFIX[length:], *tokens] for tokens in own], side)
    return shared._replace(prefix=PREFIX[:length]), make_batch(clips, [[*PREFIX, *tokens] for tokens in own], side)


def loss_and_gradient(model, batch):
    """With every trainable moved off its initial value: a B of zero would give A no gradient."""
    graphdef, trainable, frozen = nnx.split(model, TRAINABLE, ...)
    rng = np.random.default_rng(1)
    trainable = jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape).astype(np.float32), trainable)

    def loss(trainable, batch):
        return objective(nnx.merge(graphdef, trainable, frozen)(batch), TARGETS, 0.1).mean()

    return jax.jit(jax.value_and_grad(loss))(trainable, batch)


@pytest.fixture(scope="module", params=["paper", "readout"])
def model(request, tiny_80):
    config = ModelConfig(checkpoint=str(tiny_80), head=request.param, lora=LoraConfig(rank=4, dropout=0.0))
    return load_model(config, "abcd", make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)


@pytest.mark.parametrize(("side", "length"), [("right", 9), ("left", 9), ("right", 1)])
def test_loss_and_gradients_are_those_of_the_plain_path(model, side, length, parity):
    """Each LoRA and head gradient by its norm. What a softmax does not feel, a bias of keys, has none but rounding."""
    shared, plain = batches(side, length)
    (ours, ours_by), (theirs, theirs_by) = (loss_and_gradient(model, batch) for batch in (shared, plain))
    ours_by, theirs_by = nnx.to_flat_state(ours_by), nnx.to_flat_state(theirs_by)
    scale = max(float(jnp.linalg.norm(g[...])) for _, g in theirs_by)
    errors = [
        float(jnp.linalg.norm(a[...] - b[...]) / jnp.maximum(jnp.linalg.norm(b[...]), 1e-4 * scale))
        for (_, a), (_, b) in zip(ours_by, theirs_by, strict=True)
    ]
    head = type(model.emotion_head).__name__
    parity(f"{head}, prefix of {length}, padding {side}: loss", abs(float(ours / theirs) - 1), limit=1e-5)
    parity(f"{head}, prefix of {length}, padding {side}: gradients", max(errors))


def test_the_prefix_is_felt(model):
    shared, _ = batches("right", 9)
    other = shared._replace(prefix=PREFIX[::-1].copy())
    assert abs(loss_and_gradient(model, shared)[0] - loss_and_gradient(model, other)[0]) > 1e-4


def test_padding_of_the_rows_changes_nothing(model):
    shared, _ = batches("right", 9)
    left, _ = batches("left", 9)
    np.testing.assert_allclose(model(left), model(shared), atol=1e-5)
