"""Adapters of bfloat16 states: nearly as exact as float32 adapters, values, gradients and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aer_jax.models.adapters.lora import LoRA
from aer_jax.models.remat import REMAT, kept

D_IN, D_OUT, RANK = 96, 64, 8
ROUNDING = 2.0**-8  # of bfloat16, relative


def adapted(x, a, b):
    """x A B by an adapter with these weights."""
    adapter = LoRA((D_IN, D_OUT), RANK, RANK, 0.0, jax.random.key(0))
    adapter.a, adapter.b = nnx.LoRAParam(a), nnx.LoRAParam(b)
    return adapter(x)


def error(found, exact) -> float:
    return float(np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=(3, 37, width)), jnp.bfloat16) for width in (D_IN, D_OUT))
    a, b = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((D_IN, RANK), (RANK, D_OUT)))
    return x, a, b, dy


def test_values_and_gradients_beside_float64(arrays):
    """float32's own errors are 1e-7; of factors rounded to bfloat16 they would be 2e-3, to TF32 2e-4."""
    y, back = jax.vjp(adapted, *arrays[:3])
    dx, da, db = back(arrays[3])
    x, a, b, dy = (np.asarray(each, np.float64) for each in arrays)
    assert y.dtype == dx.dtype == jnp.bfloat16 and da.dtype == db.dtype == jnp.float32
    assert error(y, x @ a @ b) < ROUNDING / 2 and error(dx, dy @ b.T @ a.T) < ROUNDING / 2
    x, dy = x.reshape(-1, D_IN), dy.reshape(-1, D_OUT)
    assert error(da, x.T @ dy @ b.T) < 1e-5
    assert error(db, (x @ a).T @ dy) < 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_what_a_gives_is_kept_for_the_backward_pass(arrays, dtype):
    """`dots` multiplies no more often than a pass that keeps everything; `full` gives x A and x A B anew."""
    graphdef, state = nnx.split(LoRA((D_IN, D_OUT), RANK, alpha=8.0, dropout=0.0, key=jax.random.key(0)))
    x = arrays[0].astype(dtype)

    def products(remat) -> int:
        body = REMAT[remat](lambda state: jnp.sin(kept(nnx.merge(graphdef, state)(x))))
        both = jax.value_and_grad(lambda state: body(state).astype(jnp.float32).sum())
        return jax.jit(both).lower(state).as_text().count("dot_general")

    assert products("none") == products("dots") == products("full") - 2


def test_rounded_once(arrays):
    """Before it is rounded the value is good to more bits than bfloat16 keeps, so one in a hundred is its neighbour."""
    x, a, b, _ = arrays
    found = np.asarray(adapted(x, a, b), np.float64)
    exact = np.asarray(x, np.float64) @ np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    nearest = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64)
    assert (found != nearest).mean() < 0.01


@pytest.mark.parametrize("key", [None, 0])
def test_an_adapter_of_bfloat16_states_is_the_float32_one(arrays, key):
    """The same draw of dropout, at the same scale."""
    adapter = LoRA((D_IN, D_OUT), RANK, 16.0, 0.2, jax.random.key(1))
    adapter.b = nnx.LoRAParam(arrays[2])
    x = arrays[0]
    mask = None if key is None else jax.random.bernoulli(jax.random.key(key), 0.8, x.shape)
    exact = np.asarray(adapter(x.astype(jnp.float32), mask), np.float64)
    found = adapter(x, mask)
    assert found.dtype == jnp.bfloat16
    assert error(found, exact) < ROUNDING / 2
