"""Jensen-Shannon divergence between prediction and votes, plus an entropy term; nats, float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

EPS = 1e-10


def jensen_shannon(logits_bk: jax.Array, target_bk: jax.Array) -> jax.Array:
    """1/2 KL(p, m) + 1/2 KL(q, m) with p = softmax(logits), m = (p + q) / 2; nats, float32 [batch].

    Finite, with finite gradients, also where p or q has zeros.
    """
    log_p_bk = jax.nn.log_softmax(logits_bk.astype(jnp.float32))
    p_bk = jnp.exp(log_p_bk)
    log_m_bk = jnp.log((p_bk + target_bk) / 2 + EPS)
    kl_p_b = (p_bk * (log_p_bk - log_m_bk)).sum(-1)
    kl_q_b = (xlogy(target_bk, target_bk) - target_bk * log_m_bk).sum(-1)
    return (kl_p_b + kl_q_b) / 2


def bhattacharyya(logits_bk: jax.Array, target_bk: jax.Array) -> jax.Array:
    """Bhattacharyya coefficient, the sum of sqrt(p q), 1 for equal distributions; float32 [batch]."""
    return jnp.sqrt(jax.nn.softmax(logits_bk.astype(jnp.float32)) * target_bk).sum(-1)


def entropy(logits_bk: jax.Array) -> jax.Array:
    """Entropy of softmax(logits), nats, float32 [batch]."""
    log_p_bk = jax.nn.log_softmax(logits_bk.astype(jnp.float32))
    return -(jnp.exp(log_p_bk) * log_p_bk).sum(-1)


def objective(logits_bk: jax.Array, target_bk: jax.Array, entropy_weight: float) -> jax.Array:
    """The paper's loss: divergence + weight x entropy of the prediction, which sharpens it; nats [batch]."""
    return jensen_shannon(logits_bk, target_bk) + entropy_weight * entropy(logits_bk)
