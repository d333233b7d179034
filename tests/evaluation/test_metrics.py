import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from sklearn import metrics as sk

from aer_jax.evaluation import metrics
from aer_jax.evaluation.pooled import POOLED, by_class, pooled, resampled

counts = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6), elements=st.integers(0, 9)
).filter(lambda c: (c.sum(axis=1) > 0).all())


def dirichlet(n, k, seed, alpha=0.7):
    return np.random.default_rng(seed).dirichlet(np.full(k, alpha), size=n)


def references_with_ties(n, k, seed):
    votes_nk = np.random.default_rng(seed).multinomial(4, np.full(k, 1 / k), size=n)
    return votes_nk / 4


def test_js_is_scipys_distance_squared_in_bits():
    p_nk, q_nk = dirichlet(50, 5, 0), references_with_ties(50, 5, 1)
    distance_n = jensenshannon(p_nk, q_nk, base=2, axis=1)
    np.testing.assert_allclose(metrics.js_divergence(p_nk, q_nk), distance_n**2, atol=1e-12)
    np.testing.assert_allclose(metrics.js_distance(p_nk, q_nk), jensenshannon(p_nk, q_nk, axis=1), atol=1e-12)


def test_js_and_bc_by_hand():
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])
    # m = (3/4, 1/4): KL(p, m) = 1/2 log2(2/3) + 1/2 log2(2), KL(q, m) = log2(4/3)
    expected = (0.5 * np.log2(2 / 3) + 0.5 + np.log2(4 / 3)) / 2
    assert metrics.js_divergence(p, q) == pytest.approx(expected, abs=1e-15)
    assert metrics.js_divergence(p, q) == pytest.approx(0.311, abs=5e-4)
    assert metrics.js_distance(p, q) == pytest.approx(0.465, abs=1e-3)
    assert metrics.bhattacharyya(p, q) == pytest.approx(np.sqrt(0.5))
    disjoint = np.array([0.0, 0.0, 1.0, 0.0])
    assert metrics.js_divergence(q, disjoint) == 1.0
    assert metrics.bhattacharyya(q, disjoint) == 0.0


@given(counts, st.integers(0, 2**32 - 1))
def test_js_and_bc_are_bounded_symmetric_and_zero_for_equal(votes_nk, seed):
    p_nk = votes_nk / votes_nk.sum(axis=1, keepdims=True)
    q_nk = dirichlet(*p_nk.shape, seed)
    js_n, bc_n = metrics.js_divergence(p_nk, q_nk), metrics.bhattacharyya(p_nk, q_nk)
    assert ((js_n >= 0) & (js_n <= 1)).all() and ((bc_n >= 0) & (bc_n <= 1)).all()
    np.testing.assert_allclose(js_n, metrics.js_divergence(q_nk, p_nk), atol=1e-15)
    np.testing.assert_allclose(metrics.js_divergence(p_nk, p_nk), 0, atol=1e-15)
    np.testing.assert_allclose(metrics.bhattacharyya(p_nk, p_nk), 1, atol=1e-12)


def test_r2_is_sklearns_macro_average_where_references_vary():
    references_nk, probs_nk = dirichlet(40, 4, 2), dirichlet(40, 4, 3)
    assert pooled(references_nk, probs_nk)["r2"] == pytest.approx(
        sk.r2_score(references_nk, probs_nk, multioutput="uniform_average")
    )
    constant_nk = np.column_stack([references_nk[:, :2] / references_nk[:, :2].sum(1, keepdims=True), np.zeros(40)])
    r2 = [row["r2"] for row in by_class(constant_nk, dirichlet(40, 3, 4), "abc").values()]
    assert np.isnan(r2).tolist() == [False, False, True]
    same_nk = np.tile([0.5, 0.5], (3, 1))
    assert np.isnan(pooled(same_nk, same_nk)["r2"])


def test_labels_agree_with_sklearn_where_nothing_is_tied():
    references_nk, probs_nk = dirichlet(60, 4, 5), dirichlet(60, 4, 6)
    truth_n, guess_n = references_nk.argmax(1), probs_nk.argmax(1)
    scores = pooled(references_nk, probs_nk)
    accuracy = metrics.pointwise(references_nk, probs_nk)["accuracy"].mean()
    assert accuracy == pytest.approx(sk.accuracy_score(truth_n, guess_n))
    assert (metrics.pointwise(references_nk, probs_nk)["accuracy_argmax"] == (truth_n == guess_n)).all()
    assert scores["uar"] == pytest.approx(sk.balanced_accuracy_score(truth_n, guess_n))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(truth_n, guess_n, average="macro"))
    assert scores["weighted_f1"] == pytest.approx(sk.f1_score(truth_n, guess_n, average="weighted"))


def test_any_of_tied_largest_classes_is_right():
    references_nk = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    probs_nk = np.eye(3)
    reference_n, predicted_n = metrics.hard_labels(references_nk, probs_nk)
    assert predicted_n.tolist() == [0, 1, 2]
    assert reference_n.tolist() == [0, 1, 0]  # the third guess is wrong: the first tied class stands
    values = metrics.pointwise(references_nk, probs_nk)
    assert values["accuracy"].tolist() == [1, 1, 0] and values["accuracy_argmax"].tolist() == [1, 0, 0]


@given(counts, st.integers(0, 2**32 - 1))
def test_argmax_accuracy_is_sklearns(votes_nk, seed):
    """Of votes as people give them, many of them tied; predictions tie too."""
    references_nk = votes_nk / votes_nk.sum(axis=1, keepdims=True)
    probs_nk = (
        np.random.default_rng(seed).multinomial(3, np.full(votes_nk.shape[1], 1 / votes_nk.shape[1]), len(votes_nk)) / 3
    )
    values = metrics.pointwise(references_nk, probs_nk)
    assert values["accuracy_argmax"].mean() == sk.accuracy_score(votes_nk.argmax(1), probs_nk.argmax(1))
    assert (values["accuracy_argmax"] <= values["accuracy"]).all()
    any_tie = votes_nk[np.arange(len(votes_nk)), probs_nk.argmax(1)] == votes_nk.max(1)
    assert values["accuracy"].tolist() == any_tie.tolist()


def test_a_class_that_nobody_chose_does_not_count_into_uar():
    references_nk = np.eye(3)[[0, 0, 1, 1]]
    probs_nk = np.eye(3)[[0, 0, 1, 2]]
    scores = pooled(references_nk, probs_nk)
    assert scores["uar"] == pytest.approx((1 + 0.5) / 2)
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # the third was predicted, so its F1 is 0
    recall = {name: row["recall"] for name, row in by_class(references_nk, probs_nk, "abc").items()}
    assert recall["a"] == 1 and recall["b"] == 0.5 and np.isnan(recall["c"])


def test_calibration_errors_by_hand():
    probs_nk = np.array([[0.95, 0.05], [0.91, 0.09], [0.35, 0.65]])
    references_nk = np.array([[0.8, 0.2], [0.25, 0.75], [0.5, 0.5]])
    scores = pooled(references_nk, probs_nk)
    # bin [.9, 1]: confidence .93, right 1 of 2, mean share (.8 + .25) / 2; bin [.6, .7): .65, right (tie), .5
    assert scores["ece"] == pytest.approx((2 * abs(0.93 - 0.5) + abs(0.65 - 1)) / 3)
    assert scores["ece_soft"] == pytest.approx((2 * abs(0.93 - 0.525) + abs(0.65 - 0.5)) / 3)


def test_ece_agrees_with_sklearns_calibration_curve():
    references_nk, probs_nk = dirichlet(300, 4, 7), dirichlet(300, 4, 8)
    right_n = references_nk.argmax(1) == probs_nk.argmax(1)
    from sklearn.calibration import calibration_curve

    accuracy_b, confidence_b = calibration_curve(right_n, probs_nk.max(1), n_bins=10)
    bins = metrics.reliability(references_nk, probs_nk)
    full_b = bins.n > 0
    np.testing.assert_allclose(bins.accuracy[full_b], accuracy_b, atol=1e-12)
    np.testing.assert_allclose(bins.confidence[full_b], confidence_b, atol=1e-12)
    assert bins.n.sum() == 300


@given(counts, st.integers(0, 2**32 - 1))
def test_every_metric_of_a_perfect_prediction_is_perfect(votes_nk, seed):
    p_nk = votes_nk / votes_nk.sum(axis=1, keepdims=True)
    scores = pooled(p_nk, p_nk)
    assert scores["uar"] == scores["macro_f1"] == scores["weighted_f1"] == 1
    assert scores["ece_soft"] == pytest.approx(0, abs=1e-12)
    assert np.isnan(scores["r2"]) or scores["r2"] == pytest.approx(1)


def by_sklearn(references_nk, probs_nk):
    """The metrics of the drawn utterances themselves."""
    reference_n, predicted_n = metrics.hard_labels(references_nk, probs_nk)
    varies_k = np.ptp(references_nk, axis=0) > 1e-12
    heard, named = np.unique(reference_n), np.union1d(reference_n, predicted_n)
    bins = metrics.reliability(references_nk, probs_nk)
    weight_b = bins.n / bins.n.sum()
    r2 = sk.r2_score(references_nk[:, varies_k], probs_nk[:, varies_k]) if varies_k.any() else np.nan
    return {
        "r2": r2,
        "ece": np.nansum(weight_b * abs(bins.confidence - bins.accuracy)),
        "ece_soft": np.nansum(weight_b * abs(bins.confidence - bins.reference)),
        "uar": sk.recall_score(reference_n, predicted_n, labels=heard, average="macro", zero_division=0),
        "macro_f1": sk.f1_score(reference_n, predicted_n, labels=named, average="macro", zero_division=0),
        "weighted_f1": sk.f1_score(reference_n, predicted_n, labels=named, average="weighted", zero_division=0),
    }


@pytest.mark.parametrize("seed", range(4))
def test_resampled_speakers_equal_scoring_the_drawn_utterances_by_sklearn(seed):
    """Within 1e-9, for 20 draws of 7 speakers and the data itself; few votes, so that ties occur."""
    rng = np.random.default_rng(seed)
    references_nk = rng.multinomial(4, rng.dirichlet(np.full(4, 0.6)), size=90) / 4
    probs_nk = 0.5 * references_nk + 0.5 * rng.dirichlet(np.full(4, 0.7), size=90)
    speaker_n = rng.integers(7, size=90)
    times_rs = np.concatenate([np.ones((1, 7), int), rng.multinomial(7, np.full(7, 1 / 7), size=20)])
    ours = resampled(references_nk, probs_nk, speaker_n, times_rs)
    for r, times_s in enumerate(times_rs):
        drawn = np.repeat(np.arange(90), times_s[speaker_n])
        theirs = by_sklearn(references_nk[drawn], probs_nk[drawn])
        means = metrics.pointwise(references_nk[drawn], probs_nk[drawn])
        theirs |= {name: values_n.mean() for name, values_n in means.items()}
        assert set(ours) == set(theirs) >= set(POOLED)
        for name, value in theirs.items():
            assert ours[name][r] == pytest.approx(value, abs=1e-9, nan_ok=True), name
        assert pooled(references_nk[drawn], probs_nk[drawn]) == pytest.approx({name: theirs[name] for name in POOLED})


def test_without_a_top_label_only_r2_is_pooled():
    references_nk = references_with_ties(40, 4, 9)
    scores = pooled(references_nk, np.full((40, 4), 0.25), top_label=False)
    assert [name for name in POOLED if not np.isnan(scores[name])] == ["r2"]
    assert scores["r2"] == pytest.approx(sk.r2_score(references_nk, np.full((40, 4), 0.25)))


def test_a_class_that_nobody_chose_among_the_drawn():
    references_nk = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1.0]])
    probs_nk = np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    ours = resampled(references_nk, probs_nk, np.arange(3), np.array([[1, 1, 0], [3, 0, 0]]))
    for r, drawn in enumerate(([0, 1], [0, 0, 0])):
        theirs = by_sklearn(references_nk[drawn], probs_nk[drawn])
        for name in POOLED:
            assert ours[name][r] == pytest.approx(theirs[name], abs=1e-12, nan_ok=True), name
