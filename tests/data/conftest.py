"""The clips and votes that most tests of batches read."""

import numpy as np
import pytest
from noise_clips import FakeDataset, K


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    return FakeDataset(rng.integers(2_000, 60_000, 83))


@pytest.fixture(scope="module")
def targets(dataset):
    """Distributions whose most likely class is 0, 1, 2 in shares of about .7, .2, .1."""
    rng = np.random.default_rng(1)
    classes = rng.choice(K, len(dataset.clips), p=[0.7, 0.2, 0.1])
    return np.eye(K)[classes] * 0.5 + rng.dirichlet(np.ones(K), len(classes)) * 0.5
