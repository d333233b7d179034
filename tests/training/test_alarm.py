"""Numbers that are not finite are blamed on what made them: the base, clips, or the learning rate."""

import jax.numpy as jnp
import numpy as np
import pytest

from aer_jax.errors import UserError
from aer_jax.training.alarm import refuse_base, refuse_features

GOOD = {"layers": {"kernel": jnp.ones((2, 3), jnp.bfloat16)}, "steps": jnp.array(3)}
BAD = GOOD | {"norm": {"scale": jnp.array([1.0, float("nan")])}}


def test_a_base_with_weights_that_are_no_numbers():
    refuse_base(GOOD, "base")
    for value in (float("nan"), float("inf")):
        with pytest.raises(
            UserError, match=r"the base DIR holds weights that are not finite \(the first in norm.scale"
        ):
            refuse_base(GOOD | {"norm": {"scale": jnp.array([1.0, value])}}, "DIR")


def test_features_that_are_no_numbers():
    inputs_ne = np.zeros((4, 3), np.float32)
    refuse_features(inputs_ne, list("abcd"), BAD, "DIR")
    inputs_ne[1:3, 2] = np.inf
    with pytest.raises(UserError, match=r"of 2 of 4 clips is not finite, the first is b; listen to them"):
        refuse_features(inputs_ne, list("abcd"), GOOD, "DIR")
    with pytest.raises(UserError, match="the base DIR holds weights"):
        refuse_features(inputs_ne, list("abcd"), BAD, "DIR")
