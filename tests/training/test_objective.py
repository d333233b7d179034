"""The loss against scipy and torch, and that nothing in it is infinite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy

from aer_jax.training.objective import entropy, jensen_shannon, objective


@pytest.fixture
def case():
    """Logits and targets [64, 5]; a third of the targets is one-hot."""
    rng = np.random.default_rng(0)
    logits_bk = rng.normal(0, 3, (64, 5)).astype(np.float32)
    targets_bk = rng.dirichlet([0.5] * 5, 64).astype(np.float32)
    targets_bk[::3] = np.eye(5, dtype=np.float32)[rng.integers(5, size=len(targets_bk[::3]))]
    return logits_bk, targets_bk


def test_divergence_is_scipys(case):
    logits_bk, targets_bk = case
    ours_b = jensen_shannon(logits_bk, targets_bk)
    p_bk = softmax(logits_bk.astype(np.float64), axis=1)
    theirs_b = jensenshannon(p_bk, targets_bk.astype(np.float64), base=np.e, axis=1) ** 2
    np.testing.assert_allclose(ours_b, theirs_b, atol=1e-6)


def test_entropy_is_scipys(case):
    logits_bk, _ = case
    theirs_b = scipy_entropy(softmax(logits_bk.astype(np.float64), axis=1), axis=1)
    np.testing.assert_allclose(entropy(logits_bk), theirs_b, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.08])
def test_value_and_gradient_are_torchs(case, weight):
    logits_bk, targets_bk = case
    x_bk = torch.tensor(logits_bk, dtype=torch.float64, requires_grad=True)
    q_bk = torch.tensor(targets_bk, dtype=torch.float64)
    p_bk = x_bk.softmax(-1)
    m_bk = (p_bk + q_bk) / 2
    kl = torch.nn.functional.kl_div
    theirs_b = (kl(m_bk.log(), p_bk, reduction="none") + kl(m_bk.log(), q_bk, reduction="none")).sum(-1) / 2
    theirs_b = theirs_b + weight * torch.distributions.Categorical(logits=x_bk).entropy()
    theirs_b.sum().backward()

    ours_b, gradient = jax.vjp(lambda x: objective(x, targets_bk, weight), jnp.asarray(logits_bk))
    np.testing.assert_allclose(ours_b, theirs_b.detach(), atol=1e-6)
    np.testing.assert_allclose(gradient(jnp.ones(64))[0], x_bk.grad, atol=1e-6)


logit = st.floats(-1e30, 1e30, allow_subnormal=False) | st.sampled_from([0.0, 100.0, -100.0, 1e4, -1e4])


@settings(max_examples=200)
@given(
    logits=st.lists(logit, min_size=4, max_size=4),
    target=st.sampled_from([0, 1, 2, 3]).map(lambda k: np.eye(4)[k]) | st.just(np.full(4, 0.25)),
    weight=st.sampled_from([0.0, 0.08, 1.0]),
)
def test_value_and_gradient_are_finite(logits, target, weight):
    logits_1k, target_1k = jnp.array([logits], jnp.float32), jnp.array([target], jnp.float32)
    value, gradient = jax.value_and_grad(lambda x: objective(x, target_1k, weight).sum())(logits_1k)
    assert -1e-6 <= value <= np.log(2) + weight * np.log(4) + 1e-6
    assert np.isfinite(gradient).all()


def test_bounds():
    sure = jnp.array([[1e4, 0, 0, 0]])
    assert jensen_shannon(sure, jnp.eye(4)[:1]) == pytest.approx(0, abs=1e-6)
    assert jensen_shannon(sure, jnp.eye(4)[1:2]) == pytest.approx(np.log(2), abs=1e-6)
    assert entropy(jnp.zeros((1, 4))) == pytest.approx(np.log(4), abs=1e-6)
