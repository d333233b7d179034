"""Alpha: the krippendorff package's figure for votes, and what drawn votes give on average for shares and pairs."""

import krippendorff
import numpy as np
import pytest

from aer_jax.evaluation.raters.reliability import alpha, alphas, count_terms, pair_terms, share_terms


def package(counts_nk):
    return krippendorff.alpha(value_counts=counts_nk, level_of_measurement="nominal")


def once(terms_nm):
    return alpha(terms_nm.sum(axis=0, keepdims=True))[0]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def one_hot(labels_nl, missing_nl):
    return np.eye(4)[labels_nl] * ~missing_nl[:, :, None]


def test_votes_give_the_packages_alpha(rng):
    """Also with missing votes, and utterances with one vote or none."""
    truth_nk = rng.dirichlet(np.full(4, 0.5), 60)
    counts_nk = np.array([rng.multinomial(rng.integers(0, 7), p_k) for p_k in truth_nk])
    assert once(count_terms(counts_nk)) == pytest.approx(package(counts_nk), abs=1e-12)
    labels_nl = np.array([rng.choice(4, 6, p=p_k) for p_k in truth_nk])
    votes_nlk = one_hot(labels_nl, rng.random((60, 6)) < 0.4)
    assert once(share_terms(votes_nlk)) == pytest.approx(package(votes_nlk.sum(axis=1).astype(int)), abs=1e-12)
    found = alphas(counts_nk, votes_nlk, np.arange(60) % 5)
    assert found["human"]["value"] == pytest.approx(package(counts_nk), abs=1e-12)
    assert found["synthetic"]["value"] == pytest.approx(package(votes_nlk.sum(axis=1).astype(int)), abs=1e-12)


def test_shares_give_what_votes_drawn_from_them_give(rng):
    """Within four standard errors of the mean over 200 draws."""
    shares_nlk = rng.dirichlet(np.full(4, 0.7), (400, 3)) * 0.5 + 0.5 * rng.dirichlet(np.full(4, 0.4), (400, 1))
    drawn = []
    for _ in range(200):
        labels_nl = (rng.random((400, 3, 1)) > shares_nlk.cumsum(axis=2)).sum(axis=2).clip(max=3)
        drawn.append(package(np.eye(4, dtype=int)[labels_nl].sum(axis=1)))
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert once(share_terms(shares_nlk)) == pytest.approx(np.mean(drawn), abs=4 * error)


def test_a_pair_is_one_vote_of_each_side(rng):
    human_nk, synthetic_nk = rng.dirichlet(np.full(4, 0.5), (2, 400))
    synthetic_nk = 0.5 * human_nk + 0.5 * synthetic_nk
    drawn = []
    for _ in range(200):
        one, other = (
            (rng.random((400, 1)) > p_nk.cumsum(axis=1)).sum(axis=1).clip(max=3) for p_nk in (human_nk, synthetic_nk)
        )
        drawn.append(krippendorff.alpha(reliability_data=[one, other], level_of_measurement="nominal"))
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert once(pair_terms(human_nk, synthetic_nk)) == pytest.approx(np.mean(drawn), abs=4 * error)


def test_intervals_are_over_speakers_and_hold_the_value(rng):
    truth_nk = rng.dirichlet(np.full(4, 0.3), 200)
    counts_nk, votes_nlk = rng.multinomial(5, truth_nk), rng.multinomial(1, truth_nk[:, None], (200, 6)).astype(float)
    for row in alphas(counts_nk, votes_nlk, np.arange(200) % 20).values():
        low, high = row["ci"]
        assert low < row["value"] < high and high - low < 0.3
    assert alphas(counts_nk, votes_nlk, np.zeros(200))["human"]["ci"] is None


def test_one_label_alone_has_no_alpha():
    counts_nk, votes_nlk = np.tile([3, 0, 0, 0], (5, 1)), np.tile([1.0, 0, 0, 0], (5, 2, 1))
    assert {row["value"] for row in alphas(counts_nk, votes_nlk, np.arange(5)).values()} == {None}
