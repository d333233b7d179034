"""Saturation: the curve is the expectation that enumeration gives, and the fits find known laws."""

import numpy as np
import pytest
from scipy.stats import binom

from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.raters.saturation import FROM, fit_inverse, js_by_number, reached, saturation


def votes(rng, p_nk, listeners):
    return rng.multinomial(1, p_nk[:, None], (len(p_nk), listeners)).astype(float)


def expected(human_k, p, n):
    """Mean JS between `human_k` and the shares of n votes, of which each is the first label with probability p."""
    first_m = np.arange(n + 1)
    shares_mk = np.stack([first_m, n - first_m], axis=1) / n
    return binom.pmf(first_m, n, p) @ js_divergence(np.array(human_k), shares_mk)


def test_the_curve_is_the_closed_form():
    """4,000 utterances of one law, two labels: within four standard errors of the enumerated expectation."""
    human_k, p = (0.6, 0.4), 0.3
    p_nk = np.tile([p, 1 - p], (4_000, 1))
    used_n, js_um = js_by_number(np.tile(human_k, (4_000, 1)), votes(np.random.default_rng(5), p_nk, 8))
    assert used_n.all() and js_um.shape == (4_000, 8)
    errors_m = js_um.std(axis=0) / np.sqrt(4_000)
    for m in range(8):
        assert js_um[:, m].mean() == pytest.approx(expected(human_k, p, m + 1), abs=4 * errors_m[m])


def test_subsets_are_drawn_without_replacement_among_the_votes_that_are_there():
    """All votes together are one distribution, whatever the order; utterances with too few votes are left out."""
    rng = np.random.default_rng(1)
    votes_nlk = votes(rng, rng.dirichlet(np.ones(3), 50), 6)
    votes_nlk[:20, :2] = 0  # these have 4 votes, the others 6
    human_nk = rng.dirichlet(np.ones(3), 50)
    used_n, js_um = js_by_number(human_nk, votes_nlk)
    assert used_n.tolist() == [False] * 20 + [True] * 30 and js_um.shape == (30, 6)
    pooled_nk = votes_nlk[20:].sum(axis=1) / 6
    np.testing.assert_allclose(js_um[:, -1], js_divergence(human_nk[20:], pooled_nk), atol=1e-12)
    alone_n = js_divergence(human_nk[20:, None], votes_nlk[20:]).mean(axis=1)
    assert js_um[:, 0].mean() == pytest.approx(alone_n.mean(), abs=0.02)


def test_the_inverse_law_is_recovered():
    js_m = 0.2 + 0.1 / np.arange(1, 11)
    fit = fit_inverse(js_m)
    assert (fit["a"], fit["b"]) == pytest.approx((0.2, 0.1), abs=1e-9)
    assert fit["n_gain"] == pytest.approx(10)  # (1 - 1 / N) is the share of the gain
    assert fit_inverse(js_m[: FROM + 1]) is None


def test_the_limit_of_listeners_of_a_known_law():
    """20 votes of listeners that mix the truth with a bias: a + b / N foretells the exact JS to 8%."""
    rng = np.random.default_rng(2)
    truth_nk = rng.dirichlet(np.ones(4), 1_500)
    heard_nk = 0.5 * truth_nk + 0.5 * np.array([0.1, 0.2, 0.5, 0.2])
    human_nk = rng.multinomial(10, truth_nk) / 10
    found = saturation(human_nk, votes(rng, heard_nk, 20), np.arange(1_500) % 15, heard_nk)
    limit = js_divergence(human_nk, heard_nk).mean()
    assert found["exact"]["js"] == pytest.approx(limit, abs=1e-12)
    assert found["inverse"]["a"] == pytest.approx(limit, rel=0.08)
    assert found["js"][-1] > limit and 11 < found["exact"]["n_gain"] < 14
    low, high = found["ci"][-1]
    assert low < found["js"][-1] < high


def test_where_the_gain_is_reached():
    js_m = np.array([0.5, 0.3, 0.2, 0.11, 0.1])
    assert reached(js_m, 0.1) == pytest.approx(3 + (0.2 - 0.14) / 0.09)
    assert reached(js_m, 0.0) is None and reached(js_m, 0.6) is None


def test_an_exact_journal_of_other_utterances_is_no_limit():
    rng = np.random.default_rng(3)
    p_nk = rng.dirichlet(np.ones(3), 30)
    exact_nk = p_nk.copy()
    exact_nk[4] = np.nan
    found = saturation(p_nk, votes(rng, p_nk, 5), np.arange(30) % 3, exact_nk)["exact"]
    assert found == {"js": None, "ci": None, "n_gain": None, "missing": 1}
