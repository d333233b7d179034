"""LoRA's dropout acts on the adapter's input, on nothing else, and on nothing at all in evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from our_model import load_ours, our_batch

from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.adapters import lora
from aer_jax.models.adapters.dropout import keep_mask, kept_share
from aer_jax.models.layers import Linear
from aer_jax.training.step import model_batch

RATE, DRAWS = 0.2, 20_000


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_ours(tiny_checkpoint, 4, dropout=RATE)


@pytest.fixture(scope="module")
def batch(tiny_checkpoint, toy_speech):
    speech = toy_speech.first(3)
    return model_batch(our_batch(speech, PromptEncoder(tiny_checkpoint, speech.classes), range(3)))


def test_mean_and_variance_over_many_draws(measured):
    """E[y] is the output without dropout; Var[y_o] = s^2 p / (1 - p) sum_i (x_i (A B)_io)^2, of independent inputs."""
    linear = Linear(24, 10, bias=True, rngs=nnx.Rngs(0))
    linear.lora = lora.LoRA((24, 10), rank=6, alpha=12.0, dropout=RATE, key=jax.random.key(0))
    linear.lora.b[...] = jax.random.normal(jax.random.key(1), (6, 10))
    x_i = jax.random.normal(jax.random.key(2), (24,))
    x_bti = jnp.broadcast_to(x_i, (DRAWS // 4, 4, 24))
    masks = lora.dropout_masks({"it": linear}, jax.random.split(jax.random.key(3), 1), [x_bti.shape[:2]])
    y_no = np.asarray(linear(x_bti, masks["it"]), np.float64).reshape(DRAWS, -1)
    weights_io = np.asarray(linear.lora.a[...] @ linear.lora.b[...], np.float64)
    contributions_io = linear.lora.scaling * np.asarray(x_i)[:, None] * weights_io
    variance_o = RATE / (1 - RATE) * np.square(contributions_io).sum(axis=0)
    z_o = (y_no.mean(axis=0) - np.asarray(linear(x_i))) / np.sqrt(variance_o / DRAWS)
    ratio_o = y_no.var(axis=0) / variance_o
    measured(
        f"LoRA dropout, {DRAWS} draws: mean within {np.abs(z_o).max():.1f} standard errors of the output without "
        f"dropout, variance {ratio_o.min():.3f} to {ratio_o.max():.3f} of the analytic one"
    )
    assert np.abs(z_o).max() < 4.5
    np.testing.assert_allclose(ratio_o, 1, atol=0.06)


def test_the_bytes_of_a_word_are_drawn_independently(measured):
    """Of what lies a quarter of the time apart, too, which comes of one word; the share is that of whole 256ths."""
    keep_btd = np.asarray(keep_mask(jax.random.key(0), RATE, (40, 103, 50)), np.float64)
    share = kept_share(RATE)
    assert abs(share - (1 - RATE)) < 1 / 512
    deviation = np.sqrt(share * (1 - share))
    z = (keep_btd.mean() - share) / (deviation / np.sqrt(keep_btd.size))
    centred_btd = (keep_btd - share) / deviation
    correlations = {
        lag: (centred_btd[:, lag:] * centred_btd[:, :-lag]).mean() * np.sqrt(centred_btd[:, lag:].size)
        for lag in (1, 26, 52, 78)
    }
    measured(f"dropout by bytes: mean {z:.1f}, correlations {max(map(abs, correlations.values())):.1f} standard errors")
    assert abs(z) < 4 and max(map(abs, correlations.values())) < 4


def test_with_b_zero_dropout_touches_nothing(model, batch):
    """Bit for bit, through tower and language model: the base is given its input undropped."""
    graphdef, adapters, rest = nnx.split(model, nnx.LoRAParam, ...)
    run = jax.jit(lambda adapters, key: nnx.merge(graphdef, adapters, rest).features(batch, key).hidden_bth)
    key = jax.random.key(5)
    silent = jax.tree.map_with_path(
        lambda path, leaf: leaf * 0 if "['b']" in jax.tree_util.keystr(path) else leaf, adapters
    )
    np.testing.assert_array_equal(run(silent, key), run(silent, None))
    assert not np.allclose(run(adapters, key), run(adapters, None), atol=1e-3), "with B the key must matter"


def test_evaluation_draws_nothing(model, batch):
    """Without a key the program holds no random number at all."""
    program = str(jax.make_jaxpr(lambda audio: model(batch._replace(audio=audio)))(batch.audio))
    assert "random_bits" not in program and "threefry" not in program
    drawn = str(
        jax.make_jaxpr(lambda audio, key: model(batch._replace(audio=audio), key))(batch.audio, jax.random.key(0))
    )
    assert "random_bits" in drawn


def test_mean_over_draws_through_one_layer_of_the_model(model):
    """The stacked adapters of the loaded model, too, are right in the mean."""
    q_proj = model.base.language_model.layers.self_attn.q_proj
    graphdef, state = nnx.split(q_proj)
    first = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))
    x_td = jax.random.normal(jax.random.key(0), (40, first.kernel.shape[0]))
    x_ntd = jnp.broadcast_to(x_td, (4000, *x_td.shape))
    masks = lora.dropout_masks({"it": first}, jax.random.split(jax.random.key(1), 1), [x_ntd.shape[:2]])
    y_nto = first(x_ntd, masks["it"])
    error_to = y_nto.std(axis=0) / jnp.sqrt(4000.0)
    z_to = np.asarray((y_nto.mean(axis=0) - first(x_td)) / error_to)
    assert np.abs(z_to).max() < 5
    directions = x_td.shape[0] * first.lora.a.shape[1]  # what an adapter gives has no more of them than its rank
    assert abs(z_to.std() - 1) < 4 / np.sqrt(2 * directions)
