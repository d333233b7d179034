"""Tempering under the constraint, against enumeration and against the naive answer that it is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.base.label_trie import make_trie, tempered

END = 9
LABELS = [[1, END], [1, 2, END], [1, 2, 3, END], [4, 2, END]]


def log_probs(seed: int, rows: int = 3) -> np.ndarray:
    """Of a random model over tokens 0 to 9: [rows, labels, longest label]; one number for each prefix and token."""
    rng = np.random.default_rng(seed)
    nodes: dict[tuple, np.ndarray] = {}
    found = np.zeros((rows, len(LABELS), 4))
    for i, label in enumerate(LABELS):
        for t, token in enumerate(label):
            logits_nv = nodes.setdefault(tuple(label[:t]), rng.normal(0, 2, (rows, 10)))
            found[:, i, t] = logits_nv[:, token] - np.log(np.exp(logits_nv).sum(axis=1))
    return found


def by_hand(found_nlt: np.ndarray, temperature: float) -> np.ndarray:
    """Walk down for each label."""
    nodes = {(): [1, 4], (1,): [END, 2], (1, 2): [END, 3], (4,): [2], (1, 2, 3): [END], (4, 2): [END]}
    probs = np.ones(found_nlt.shape[:2])
    for n in range(len(found_nlt)):
        for i, label in enumerate(LABELS):
            for t, token in enumerate(label):
                worth = {
                    other: np.exp(found_nlt[n, j, t] / temperature)
                    for j, known in enumerate(LABELS)
                    for other in nodes[tuple(label[:t])]
                    if known[: t + 1] == [*label[:t], other]
                }
                probs[n, i] *= worth[token] / sum(worth.values())
    return probs


def test_trie():
    assert make_trie(LABELS) == {
        (): [1, 4], (1,): [END, 2], (1, 2): [END, 3], (1, 2, 3): [END], (4,): [2], (4, 2): [END]
    }  # fmt: skip


@given(st.integers(0, 1000), st.sampled_from([0.2, 0.7, 1.0, 2.0]))
def test_tempered_is_the_walk_down_the_trie(seed, temperature):
    found = log_probs(seed)
    probs = tempered(found, LABELS, temperature)
    np.testing.assert_allclose(probs, by_hand(found, temperature), rtol=0, atol=1e-12)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=0, atol=1e-12)


def test_tempering_tokens_is_not_tempering_labels():
    found = log_probs(0)
    labels = np.exp(found.sum(-1) / 0.3)
    labels /= labels.sum(axis=1, keepdims=True)
    assert np.abs(tempered(found, LABELS, 0.3) - labels).max() > 0.05


def test_temperature_zero_takes_the_likeliest_token_and_is_the_limit():
    found = log_probs(3)
    probs = tempered(found, LABELS, 0)
    assert np.isin(probs, [0, 1]).all() and (probs.sum(axis=1) == 1).all()
    np.testing.assert_allclose(tempered(found, LABELS, 1e-3), probs, atol=1e-6)


def test_an_unlikely_label_is_no_division_by_zero():
    found = log_probs(1) - 2000
    assert tempered(found, LABELS, 0.1).sum(axis=1) == pytest.approx(1)
