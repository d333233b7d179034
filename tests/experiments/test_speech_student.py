"""Pooling helps few human votes where the annotator hears what the learner hears, and harms where it hears nothing."""

import numpy as np
import pytest
from scipy.special import softmax

from aer_jax.evaluation import linear_probe
from aer_jax.studies import speech_student
from aer_jax.studies.speech_student import study, table, thin


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    features_nf = rng.normal(size=(600, 6))
    counts_nk = rng.multinomial(10, softmax(2 * features_nf @ rng.normal(size=(6, 4)), axis=1))
    speakers_n = np.repeat([f"s{i}" for i in range(20)], 30)
    deaf_nk = rng.multinomial(8, np.full(4, 0.25), size=600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech_student, "HUMAN", (1,))
        patch.setattr(speech_student, "FOLDS", 2)
        for module in (linear_probe, speech_student):
            patch.setattr(module, "L2", (1e-4, 1e-2))
        return study(features_nf, counts_nk, speakers_n, {"deaf": deaf_nk})


def test_what_pooling_does(result):
    js = {source: row["all"] for source, row in result["js"].items()}
    assert js["1 human + 8 synthetic"] < js["1 human"] < js["1 human + deaf"] < js["deaf"]
    assert js["all human"] < js["1 human"] and result["annotator"] < js["deaf"]
    tests = {(test["human"], test["synthetic"], test["level"]): test for test in result["tests"]}
    helped, harmed = tests["1 human", "8 synthetic", "all"], tests["1 human", "deaf", "all"]
    assert helped["difference"] == pytest.approx(js["1 human + 8 synthetic"] - js["1 human"]) and helped["p"] < 0.01
    assert harmed["difference"] > 0 and harmed["p"] < 0.01
    assert all(test["p"] <= test["p_holm"] <= 1 for test in result["tests"])


def test_levels_are_parts_of_the_whole(result):
    n = result["n"]
    assert n["all"] == 600 == sum(n.values()) - n["all"]
    for row in result["js"].values():
        assert sum(row[level] * n[level] for level in n if level != "all") / 600 == pytest.approx(row["all"])


def test_the_table(result):
    text = table(result)
    assert "\n| 1 human + 8 synthetic " in text and f"{result['js']['deaf']['all']:.4f}" in text


def test_thinned_votes_are_some_of_those_there_were():
    counts_nk = np.array([[5, 0, 1], [0, 2, 0]])
    thinned_nk = thin(counts_nk, 3, np.random.default_rng(0))
    assert thinned_nk.sum(axis=1).tolist() == [3, 2] and (thinned_nk <= counts_nk).all()
