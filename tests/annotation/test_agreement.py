"""Agreement: the p-value is valid, finds real agreement, and the figures are scipy's."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import kstest, pearsonr, t

from aer_jax.evaluation.raters.agreement import against, baselines, by_ambiguity, shuffled_agreement

CLASSES = ("angry", "happy", "neutral", "sad")


def test_agreement_is_found_and_its_js_is_scipys():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(4, 0.5), size=40)
    human, synthetic = rng.multinomial(5, truth) / 5, rng.multinomial(8, truth) / 8
    found = shuffled_agreement(human, synthetic)
    expected = np.mean(jensenshannon(human, synthetic, base=2, axis=1) ** 2)
    assert found.js == pytest.approx(expected, abs=1e-12)
    assert found.p == 0.001 and found.js < found.js_shuffled
    assert found == shuffled_agreement(human, synthetic)


def test_p_is_uniform_where_votes_have_nothing_to_do_with_the_utterance():
    """A biased annotator agrees with nobody in particular: over 100 repetitions p is uniform (KS test)."""
    rng = np.random.default_rng(1)
    ps = []
    for seed in range(100):
        human, synthetic = rng.multinomial(5, [0.1, 0.2, 0.5, 0.2], size=(2, 15)) / 5
        ps.append(shuffled_agreement(human, synthetic, 99, seed).p)
    assert kstest(ps, "uniform").pvalue > 0.01


def test_a_constant_annotator_has_p_one():
    human = np.eye(4)[[0, 1, 2, 2, 3, 2]]
    assert shuffled_agreement(human, np.tile([0, 0, 1.0, 0], (6, 1))).p == 1.0


@pytest.fixture(scope="module")
def aligned():
    rng = np.random.default_rng(2)
    truth_nk = rng.dirichlet(np.full(4, 0.7), size=120)
    counts_nk = rng.multinomial(6, truth_nk)
    return counts_nk / 6, rng.multinomial(8, truth_nk) / 8, counts_nk, np.arange(120) % 12


def test_a_row_is_scipys(aligned):
    human_nk, synthetic_nk, _, speakers_n = aligned
    row = against(human_nk, synthetic_nk, speakers_n, CLASSES)
    assert row["js"] == pytest.approx(np.mean(jensenshannon(human_nk, synthetic_nk, base=2, axis=1) ** 2), abs=1e-12)
    assert row["js_distance"] == pytest.approx(jensenshannon(human_nk, synthetic_nk, axis=1).mean(), abs=1e-12)
    assert row["bc"] == pytest.approx(np.sqrt(human_nk * synthetic_nk).sum(axis=1).mean(), abs=1e-12)
    for k, name in enumerate(CLASSES):
        r = pearsonr(human_nk[:, k], synthetic_nk[:, k]).statistic
        low, high = row["ci"]["correlation"][name]
        assert row["correlation"][name] == pytest.approx(r, abs=1e-12) and low < r < high
    assert row["correlation_mean"] == pytest.approx(np.mean(list(row["correlation"].values())))
    assert (row["n"], row["n_speakers"]) == (120, 12)


def test_correlation_intervals_are_those_of_leaving_speakers_out(aligned):
    human_nk, synthetic_nk, _, speakers_n = aligned
    r, *left_out = (
        np.corrcoef(human_nk[rows, 0], synthetic_nk[rows, 0])[0, 1]
        for rows in [speakers_n == speakers_n, *(speakers_n != speaker for speaker in np.unique(speakers_n))]
    )
    # As many utterances of each of 12 speakers: the jackknife, and Student's t with 11 degrees of freedom.
    error = np.sqrt(11 / 12 * ((r - np.array(left_out)) ** 2).sum())
    expected = r - t.ppf(0.975, 11) * error, min(1.0, r + t.ppf(0.975, 11) * error)
    found = against(human_nk, synthetic_nk, speakers_n, CLASSES)["ci"]["correlation"]["angry"]
    assert found == pytest.approx(expected, abs=1e-9)


def test_constants_have_no_correlation_and_people_have(aligned):
    human_nk, _, counts_nk, speakers_n = aligned
    rows = baselines(human_nk, counts_nk, speakers_n, CLASSES)
    assert list(rows) == ["uniform", "best_constant", "split_half"]
    assert set(rows["uniform"]["correlation"].values()) == {None} and rows["uniform"]["correlation_mean"] is None
    assert rows["best_constant"]["js"] < rows["uniform"]["js"]
    assert 0.3 < rows["split_half"]["correlation_mean"] < 1
    one_vote = baselines(human_nk, np.eye(4, dtype=int)[counts_nk.argmax(axis=1)], speakers_n, CLASSES)
    assert list(one_vote) == ["uniform", "best_constant"]


def test_bins_of_ambiguity_hold_everything(aligned):
    human_nk, synthetic_nk, counts_nk, speakers_n = aligned
    rows = by_ambiguity(human_nk, synthetic_nk, counts_nk, speakers_n)
    whole = np.mean(jensenshannon(human_nk, synthetic_nk, base=2, axis=1) ** 2)
    assert sum(row["n"] for row in rows.values()) == 120
    assert sum(row["n"] * row["js"] for row in rows.values()) / 120 == pytest.approx(whole, abs=1e-12)
    halves = baselines(human_nk, counts_nk, speakers_n, CLASSES)["split_half"]["js"]
    of_bins = sum(row["n"] * row["baselines"]["split_half"]["js"] for row in rows.values()) / 120
    assert of_bins == pytest.approx(halves, abs=1e-12)
