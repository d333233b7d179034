"""The kits and the batch that several files use, made once."""

import pytest
from kit import make_batch, make_kit
from toy_runs import CHECKPOINT, toy_dataset

from aer_jax.data.dataset import open_dataset


@pytest.fixture(scope="session")
def batch():
    return make_batch(open_dataset(toy_dataset()), CHECKPOINT)


@pytest.fixture(scope="session")
def still_kit():
    """Without dropout anywhere."""
    return make_kit(dropout=False)


@pytest.fixture(scope="session")
def kit():
    """With the dropout of a real run."""
    return make_kit()
