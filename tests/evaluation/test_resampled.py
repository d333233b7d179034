"""Metrics of resampled speakers against scoring the drawn utterances themselves, by scikit-learn through `metrics`."""

import numpy as np
import pytest

from aer_jax.evaluation.metrics import pointwise, pooled
from aer_jax.evaluation.resampled import POOLED, resampled


def data(seed, n=90, k=4):
    """Votes of few listeners, so that ties and unanimous references occur; predictions that lean towards them."""
    rng = np.random.default_rng(seed)
    references_nk = rng.multinomial(4, rng.dirichlet(np.full(k, 0.6)), size=n) / 4
    probs_nk = 0.5 * references_nk + 0.5 * rng.dirichlet(np.full(k, 0.7), size=n)
    return references_nk, probs_nk, rng.integers(7, size=n), rng


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top_label", [True, False])
def test_equals_scoring_the_drawn_utterances(seed, top_label):
    """Within 1e-9, for 20 draws of 7 speakers and the data itself."""
    references_nk, probs_nk, speaker_n, rng = data(seed)
    times_rs = np.concatenate([np.ones((1, 7), int), rng.multinomial(7, np.full(7, 1 / 7), size=20)])
    ours = resampled(references_nk, probs_nk, speaker_n, times_rs, top_label)
    for r, times_s in enumerate(times_rs):
        drawn = np.repeat(np.arange(len(speaker_n)), times_s[speaker_n])
        theirs = pooled(references_nk[drawn], probs_nk[drawn], top_label)
        means = pointwise(references_nk[drawn], probs_nk[drawn], top_label)
        theirs |= {name: values_n.mean() for name, values_n in means.items()}
        assert set(ours) == set(theirs) >= set(POOLED)
        for name, value in theirs.items():
            assert ours[name][r] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_a_class_that_nobody_heard_among_the_drawn():
    references_nk = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    probs_nk = np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    times_rs = np.array([[1, 1, 0], [3, 0, 0]])
    ours = resampled(references_nk, probs_nk, np.arange(3), times_rs)
    for r, drawn in enumerate(([0, 1], [0, 0, 0])):
        theirs = pooled(references_nk[drawn], probs_nk[drawn])
        for name in POOLED:
            assert ours[name][r] == pytest.approx(theirs[name], abs=1e-12, nan_ok=True), name
