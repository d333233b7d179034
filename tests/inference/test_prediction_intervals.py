"""Prediction intervals hold what split conformal promises, and say no more."""

import dataclasses
import json

import numpy as np
import pytest

from aer_jax.inference import prediction_intervals

CLASSES = ("a", "b", "c")


def clips(rng, n, votes=8):
    """Shares that votes sample around the predicted distribution, itself off by some noise."""
    probs_nk = rng.dirichlet([0.6, 0.8, 1.0], n)
    truth_nk = 0.8 * probs_nk + 0.2 * rng.dirichlet([1, 1, 1], n)
    return np.array([rng.multinomial(votes, p) for p in truth_nk]) / votes, probs_nk


def test_new_clips_like_the_validation_clips_fall_inside():
    """Mean coverage over 200 fits is at least the level, and the level's next step of 1 / (n + 1) is its ceiling."""
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(200):
        intervals = prediction_intervals.fit(*clips(rng, 60), ["s"] * 60, CLASSES, 1)
        kept.append(intervals.coverage(*clips(rng, 200))["coverage"])
    assert prediction_intervals.LEVEL - 0.005 < np.mean(kept) < prediction_intervals.LEVEL + 1 / 61 + 0.01


def test_ends_are_shares_and_follow_the_prediction():
    rng = np.random.default_rng(1)
    intervals = prediction_intervals.fit(*clips(rng, 100), ["s", "t"] * 50, CLASSES, 7)
    _, probs_nk = clips(rng, 50)
    ends_nk2 = intervals.around(probs_nk)
    assert (ends_nk2[..., 0] <= probs_nk).all() and (probs_nk <= ends_nk2[..., 1]).all()
    assert ends_nk2.min() >= 0 and ends_nk2.max() <= 1
    assert (intervals.n, intervals.n_speakers, intervals.step) == (100, 2, 7)
    sure, unsure = np.diff(intervals.around(np.array([[1.0, 0.0, 0.0], [0.34, 0.33, 0.33]])), axis=-1)[..., 0]
    assert sure[1] < unsure[1]


def test_too_few_clips_promise_nothing():
    """With 8 clips not even the worst of them bounds nine of ten new ones."""
    intervals = prediction_intervals.fit(*clips(np.random.default_rng(2), 8), ["s"] * 8, CLASSES, 1)
    assert (intervals.around(np.full((1, 3), 1 / 3)) == [0, 1]).all()
    assert intervals.are_trivial
    assert not prediction_intervals.fit(*clips(np.random.default_rng(2), 9), ["s"] * 9, CLASSES, 1).are_trivial


def test_intervals_belong_to_a_checkpoint(tmp_path):
    intervals = prediction_intervals.fit(*clips(np.random.default_rng(3), 30), ["s"] * 30, CLASSES, 12)
    assert prediction_intervals.load(tmp_path, 12, CLASSES) is None
    prediction_intervals.save(intervals, tmp_path)
    assert prediction_intervals.load(tmp_path, 12, CLASSES) == intervals
    assert prediction_intervals.load(tmp_path, 24, CLASSES) is None
    assert prediction_intervals.load(tmp_path, 12, ("a", "c", "b")) is None
    (tmp_path / "best" / "12").mkdir(parents=True)
    assert prediction_intervals.load(tmp_path, 12, CLASSES) is None, "of another checkpoint at the same step"
    (tmp_path / "best" / "12").rmdir()
    text = (tmp_path / prediction_intervals.FILE).read_text()
    for harm in (text.replace('"n": 30', '"n": 31'), "{}", "[]", ""):
        (tmp_path / prediction_intervals.FILE).write_text(harm)
        assert prediction_intervals.load(tmp_path, 12, CLASSES) is None
    older = dataclasses.asdict(intervals)
    (tmp_path / prediction_intervals.FILE).write_text(json.dumps(older))
    assert prediction_intervals.load(tmp_path, 12, CLASSES) == intervals


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_what_it_keeps_is_measured(shift):
    """A model that is off on new clips is seen in the coverage."""
    rng = np.random.default_rng(4)
    intervals = prediction_intervals.fit(*clips(rng, 200), ["s"] * 200, CLASSES, 1)
    references_nk, probs_nk = clips(rng, 400)
    kept = intervals.coverage(references_nk, (1 - shift) * probs_nk + shift * np.array([1, 0, 0]))
    assert (kept["coverage"] > 0.85) == (shift == 0)
    assert set(kept["by_class"]) == set(CLASSES) and 0 < kept["width"] < 1
