import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brute

from aer_jax.evaluation.ambiguity import ambiguity, ambiguity_bins
from aer_jax.evaluation.baselines import best_constant, oracle_majority, split_half
from aer_jax.evaluation.metrics import bhattacharyya, js_divergence
from aer_jax.labels.votes import Vote, Votes, normalise

VOTES = Path(__file__).parents[3] / "shared/data/crema-d/processedResults/tabulatedVotes.csv"


def references(n, k, seed, votes=5):
    rng = np.random.default_rng(seed)
    p_nk = rng.dirichlet(np.full(k, 0.6), size=n)
    return np.array([rng.multinomial(votes, p_k) for p_k in p_nk]) / votes


def test_best_constant_is_the_minimum_of_a_grid():
    references_nk = references(30, 3, 0)

    def mean_js(pq):
        p, q = pq
        return js_divergence(references_nk, np.array([p, q, 1 - p - q])).mean() if p + q <= 1 else 1.0

    grid = brute(mean_js, [(0.001, 0.999)] * 2, Ns=60)  # polished by Nelder-Mead
    found_k = best_constant(references_nk)
    assert found_k.sum() == pytest.approx(1)
    np.testing.assert_allclose(found_k[:2], grid, atol=1e-3)
    assert mean_js(found_k[:2]) <= mean_js(grid) + 1e-9


@settings(max_examples=40)
@given(st.integers(1, 20), st.integers(2, 6), st.integers(0, 10**6))
def test_no_other_constant_beats_the_best(n, k, seed):
    references_nk = references(n, k, seed)
    best = js_divergence(references_nk, best_constant(references_nk)).mean()
    others = [
        np.full(k, 1 / k),
        references_nk.mean(0),
        *np.random.default_rng(seed).dirichlet(np.ones(k), 20),
    ]
    assert all(best <= js_divergence(references_nk, other_k).mean() + 1e-7 for other_k in others)


def test_oracle_majority_is_one_label_and_ties_do_not_matter():
    references_nk = np.array([[0.2, 0.8, 0.0], [0.5, 0.0, 0.5]])
    majority_nk = oracle_majority(references_nk)
    assert majority_nk.tolist() == [[0, 1, 0], [1, 0, 0]]
    other_k = np.array([0.0, 0.0, 1.0])
    assert js_divergence(references_nk[1], majority_nk[1]) == js_divergence(references_nk[1], other_k)


def test_split_half_of_unanimous_and_of_two_votes():
    values = split_half(np.array([[4, 0], [1, 1], [1, 0], [0, 0]]))
    np.testing.assert_allclose(values["js"], [0, 1, np.nan, np.nan], atol=1e-12)
    np.testing.assert_allclose(values["bc"], [1, 0, np.nan, np.nan], atol=1e-12)


def test_split_half_has_the_expected_mean():
    # Cutting a a b b: both halves mixed with probability 2/3 (JS 0), else pure against pure (JS 1).
    assert split_half(np.full((400, 2), 2))["js"].mean() == pytest.approx(1 / 3, abs=0.02)


def test_shares_of_votes_are_not_split():
    votes = [Vote("u", "a", weight=0.7), Vote("u", "b", weight=0.3), Vote("v", "a", weight=0.5)]
    votes += [Vote("v", "a"), Vote("v", "b")]
    values = split_half(Votes(votes).whole.counts(["u", "v"], ["a", "b"]))
    assert np.isnan(values["js"]).tolist() == [True, False]


def test_ambiguity_divides_by_all_classes():
    p_nk = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4, [0.9, 0.1, 0, 0]])
    np.testing.assert_allclose(ambiguity(p_nk)[:3], [0, 0.5, 1])
    assert ambiguity_bins(ambiguity(p_nk)).tolist() == [0, 1, 2, 0]
    eight_nk = np.array([[0.5, 0.5] + [0] * 6, [0.25] * 4 + [0] * 4])  # 1/3 and 2/3 on paper
    assert ambiguity_bins(ambiguity(eight_nk)).tolist() == [1, 2]


@pytest.mark.real
@pytest.mark.skipif(not VOTES.exists(), reason="the CREMA-D vote table is not beside the checkout")
@pytest.mark.parametrize(
    ("classes", "uniform", "constant", "majority", "halves"),
    [
        ("ADFHNS", (0.378, 0.657), (0.282, 0.750), (0.223, 0.789), 0.232),
        ("AHNS", (0.369, 0.664), (0.247, 0.782), (0.135, 0.871), 0.184),
    ],
)
def test_known_figures_of_crema_d(classes, uniform, constant, majority, halves):
    with VOTES.open() as file:
        table = [row for row in csv.DictReader(file) if int(row[""]) // 100_000 == 1]  # voice only
    votes = [Vote(row["fileName"], c) for row in table for c in classes for _ in range(int(row[c]))]
    ids = list(dict.fromkeys(vote.utterance for vote in votes))
    references_nk = normalise(Votes(votes).counts(ids, classes))
    k = len(classes)
    for expected, predicted in (
        (uniform, np.full(k, 1 / k)),
        (constant, best_constant(references_nk)),
        (majority, oracle_majority(references_nk)),
    ):
        found = js_divergence(references_nk, predicted).mean(), bhattacharyya(references_nk, predicted).mean()
        np.testing.assert_allclose(found, expected, atol=6e-4)
    halves_n = split_half(Votes(votes).whole.counts(ids, classes))["js"]
    assert np.nanmean(halves_n) == pytest.approx(halves, abs=2e-3)
