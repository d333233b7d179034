"""Bias: shares that are too large are found, also where only one group's voices are misheard."""

import numpy as np
import pytest

from aer_jax.errors import UserError
from aer_jax.evaluation.raters.bias import by_class, by_group, group_of

CLASSES = ("angry", "happy", "neutral", "sad")
SPEAKERS_N = np.array([f"s{n % 16:02d}" for n in range(320)])
GROUPS_N = np.array(["low" if n % 2 == 0 else "high" for n in range(320)])


@pytest.fixture(scope="module")
def heard():
    """Synthetic listeners hear a fifth of neutral as sad, and in high voices another fifth as happy."""
    human_nk = np.random.default_rng(0).dirichlet(np.ones(4), 320)
    neutral_n = human_nk[:, 2]
    more_n = 0.2 * neutral_n * (GROUPS_N == "high")
    change_nk = np.stack([0 * neutral_n, more_n, -0.2 * neutral_n - more_n, 0.2 * neutral_n], axis=1)
    return human_nk, human_nk + change_nk


def test_labels_used_too_often(heard):
    human_nk, synthetic_nk = heard
    rows = by_class(human_nk, synthetic_nk, SPEAKERS_N, CLASSES)
    assert rows["angry"]["bias"] == 0 and rows["angry"]["ci"] == (0, 0)
    assert rows["sad"]["bias"] == pytest.approx(0.2 * human_nk[:, 2].mean())
    low, high = rows["sad"]["ci"]
    assert 0 < low < rows["sad"]["bias"] < high
    assert sum(row["bias"] for row in rows.values()) == pytest.approx(0, abs=1e-12)


def test_groups_that_are_misheard(heard):
    human_nk, synthetic_nk = heard
    rows = by_group(human_nk, synthetic_nk, SPEAKERS_N, GROUPS_N, CLASSES)
    assert list(rows) == ["high", "low"] and rows["low"]["n_speakers"] == 8
    gap, ci = rows["high"]["gap"], rows["high"]["gap_ci"]
    expected = 0.2 * human_nk[GROUPS_N == "high", 2].mean()
    assert gap["happy"] == pytest.approx(expected) and ci["happy"][0] > 0
    assert ci["sad"][0] < 0 < ci["sad"][1]  # the same in both
    assert rows["low"]["gap"]["happy"] == pytest.approx(-gap["happy"])


def test_a_speaker_by_itself_has_no_interval(heard):
    rows = by_group(*heard, SPEAKERS_N, SPEAKERS_N, CLASSES)
    assert len(rows) == 16
    assert {row["js_ci"] for row in rows.values()} == {None} == {row["gap_ci"]["sad"] for row in rows.values()}


def test_which_attribute():
    speakers = {s: {"language": "en", "sex": "male" if s < "s08" else "female"} for s in set(SPEAKERS_N)}
    name, groups_n = group_of(speakers, SPEAKERS_N, None)  # all speak the same language
    assert name == "sex" and set(groups_n) == {"male", "female"}
    assert group_of({}, SPEAKERS_N, None)[0] == "speaker" == group_of(speakers, SPEAKERS_N, "speaker")[0]
    del speakers["s00"]
    assert "unknown" in group_of(speakers, SPEAKERS_N, "sex")[1]
    with pytest.raises(UserError, match=r'the speakers\' "sexx".* Known: language, sex, speaker'):
        group_of(speakers, SPEAKERS_N, "sexx")
