"""Paired tests against scipy's, Holm's correction against statsmodels', and what only tests over speakers get right."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from aer_jax.evaluation import significance
from aer_jax.evaluation.significance import holm, sign_flip, wilcoxon_over_speakers


def scores(seed, speakers=9, effect=0.0, clips=30):
    """Scores of two arms and the speakers; a speaker's utterances share much of their difference."""
    rng = np.random.default_rng(seed)
    speaker_n = np.sort(rng.integers(speakers, size=clips * speakers // 3))
    a_n = rng.random(len(speaker_n))
    b_n = a_n + effect + 0.3 * rng.standard_normal(speakers)[speaker_n] + 0.1 * rng.standard_normal(len(speaker_n))
    return a_n, b_n, speaker_n


def by_speaker(values_n, speaker_n):
    return np.bincount(speaker_n, weights=values_n)[np.unique(speaker_n)]


@pytest.mark.parametrize("effect", [0.0, 0.1, 0.4])
def test_sign_flip_is_scipys_permutation_test_of_speakers(effect):
    """All 512 exchanges of nine speakers are counted by both: equal to rounding."""
    a_n, b_n, speaker_n = scores(1, effect=effect)
    theirs = stats.permutation_test(
        (by_speaker(a_n, speaker_n), by_speaker(b_n, speaker_n)),
        lambda x, y: (x - y).sum() / len(a_n),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    ours = sign_flip(a_n - b_n, speaker_n)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert ours.difference == pytest.approx(theirs.statistic, abs=1e-12) == (a_n - b_n).mean()
    assert ours.least == 2 / 512


def test_drawn_signs_come_close_to_all_signs(monkeypatch):
    a_n, b_n, speaker_n = scores(2, effect=0.1)
    exact = sign_flip(a_n - b_n, speaker_n).p
    monkeypatch.setattr(significance, "RESAMPLES", 511)  # one less than all
    drawn = sign_flip(a_n - b_n, speaker_n).p
    # Four standard errors of a share of the draws.
    assert abs(drawn - exact) < 4 * np.sqrt(exact * (1 - exact) / 511) + 1 / 512 and drawn != exact


def test_many_speakers_never_give_p_of_zero():
    difference_n = np.ones(40)
    assert sign_flip(difference_n, np.arange(40)).p == 1 / (significance.RESAMPLES + 1)
    assert sign_flip(np.zeros(40), np.arange(40)).p == 1


def test_wilcoxon_is_scipys_on_the_speakers_means():
    a_n, b_n, speaker_n = scores(3, effect=0.1)
    count_s = np.bincount(speaker_n)[np.unique(speaker_n)]
    theirs = stats.wilcoxon(by_speaker(a_n, speaker_n) / count_s, by_speaker(b_n, speaker_n) / count_s).pvalue
    assert wilcoxon_over_speakers(a_n - b_n, speaker_n) == pytest.approx(theirs, abs=1e-12)
    assert wilcoxon_over_speakers(np.zeros(6), list("aabbcc")) == 1


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_statsmodels(seed):
    p_t = np.random.default_rng(seed).beta(0.4, 2, size=17)
    p_t[3] = p_t[5]  # a tie
    np.testing.assert_allclose(holm(p_t), multipletests(p_t, method="holm")[1], rtol=0, atol=1e-15)
    assert len(holm([])) == 0


def test_equal_arms_are_called_different_as_rarely_as_said():
    """200 pairs of arms that differ by speaker but not on average: 5 % called by ours, 15 at most (p < .08 of more);
    a test that takes the utterances one by one calls most of them."""
    called, naive = 0, 0
    for seed in range(200):
        a_n, b_n, speaker_n = scores(100 + seed)
        called += sign_flip(a_n - b_n, speaker_n).p < 0.05
        naive += stats.wilcoxon(a_n - b_n).pvalue < 0.05
    assert called <= 15 and naive > 60
