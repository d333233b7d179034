"""Numbers that are not finite are blamed on what made them: the base, clips, or the learning rate."""

import numpy as np
import pytest

from aer_jax.errors import UserError
from aer_jax.training.hooks.nonfinite import not_finite, refuse_features


def test_features_that_are_no_numbers():
    inputs_ne = np.zeros((4, 3), np.float32)
    refuse_features(inputs_ne, list("abcd"))
    inputs_ne[1:3, 2] = np.inf
    with pytest.raises(UserError, match=r"of 2 of 4 clips is not finite, the first is b; listen to them"):
        refuse_features(inputs_ne, list("abcd"))
    inputs_ne[:] = np.nan
    with pytest.raises(UserError, match=r"of 4 of 4 clips is not finite.* look at the base"):
        refuse_features(inputs_ne, list("abcd"))


@pytest.mark.parametrize(("step", "culprit"), [(1, "look at the base"), (2, "lower train.lr")])
def test_the_learning_rate_is_not_blamed_before_anything_was_learned(tmp_path, step, culprit):
    error = not_finite(tmp_path, step, 1, {"loss": float("nan")}, [{"utterance": "a"}])
    assert culprit in str(error) and (tmp_path / "not_finite.json").exists()
