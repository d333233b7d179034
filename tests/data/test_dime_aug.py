"""DiME-Aug: who is mixed with whom, how many mixes there are, and what they carry."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aer_jax.config import load_config
from aer_jax.data.dime_aug import from_json, nearest, plan, to_json
from aer_jax.data.examples import Example, mix_audio, real_examples
from aer_jax.errors import UserError

CLASSES = ("anger", "calm", "joy", "fear")


def toy(sizes, seed=0):
    """Ids, distributions with these many clips a class, features and a function that looks features up."""
    rng = np.random.default_rng(seed)
    class_n = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    targets_nk = 0.55 * np.eye(len(sizes))[class_n] + 0.45 * rng.dirichlet(np.ones(len(sizes)), len(class_n))
    ids = [f"u{n}" for n in range(len(class_n))]
    features_nf = rng.normal(size=(len(ids), 6)) * [1, 10, 100, 1e3, 1e-3, 0]
    asked = []

    def features(wanted):
        asked.append(list(wanted))
        return features_nf[[int(id[1:]) for id in wanted]]

    return ids, targets_nk, class_n, features_nf, features, asked


def brute_force_neighbours(features_mf, k):
    """Sorted distances after standardising, self left out, by numpy alone."""
    std_f = features_mf.std(axis=0)
    z_mf = (features_mf - features_mf.mean(axis=0)) / np.where(std_f > 0, std_f, 1)
    distance_mm = np.sqrt(((z_mf[:, None] - z_mf[None]) ** 2).sum(axis=2))
    np.fill_diagonal(distance_mm, np.inf)
    return distance_mm.argsort(axis=1)[:, :k]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_neighbours_are_those_of_a_brute_force_search(k):
    features_mf = np.random.default_rng(k).normal(size=(40, 82)) * np.logspace(-3, 3, 82)
    features_mf[:, 7] = 4.2  # a feature that never changes must not divide by zero
    np.testing.assert_array_equal(nearest(features_mf, k), brute_force_neighbours(features_mf, k))


def test_a_clip_is_not_its_own_neighbour_even_among_copies():
    features_mf = np.ones((5, 3))
    for i, row in enumerate(nearest(features_mf, 3)):
        assert i not in row and len(set(row)) == 3


def test_mixes_join_true_neighbours_of_one_class_only():
    ids, targets_nk, class_n, features_nf, features, asked = toy([60, 9, 12, 30])
    made = plan(ids, targets_nk, CLASSES, features, ratio=0.5, neighbours=3, seed=1)
    assert Counter(class_n[int(mix.first[1:])] for mix in made.mixes) == {1: 21, 2: 18}
    assert len(asked) == 1 and sorted(asked[0]) == sorted(
        ids[n] for n in np.flatnonzero((class_n == 1) | (class_n == 2))
    )
    partners = {}
    for k in (1, 2):
        members = np.flatnonzero(class_n == k)
        for i, row in zip(members, brute_force_neighbours(features_nf[members], 3), strict=True):
            partners[ids[i]] = {ids[members[j]] for j in row}
    for mix in made.mixes:
        assert mix.second in partners[mix.first]
    # All three neighbours are used, not two and the point itself.
    assert max(len({m.second for m in made.mixes if m.first == id}) for id in partners) == 3


@settings(max_examples=40)
@given(st.lists(st.integers(0, 30), min_size=4, max_size=4), st.floats(0, 1), st.integers(1, 6), st.integers(0, 99))
def test_every_class_is_filled_and_every_target_is_a_convex_combination(sizes, ratio, neighbours, seed):
    ids, targets_nk, _, _, features, _ = toy(sizes, seed)
    if not ids:
        return
    made = plan(ids, targets_nk, CLASSES, features, ratio=ratio, neighbours=neighbours, seed=seed)
    target_of = dict(zip(ids, targets_nk, strict=True))
    added = Counter()
    for mix in made.mixes:
        a, b = target_of[mix.first], target_of[mix.second]
        assert mix.first != mix.second and 0 <= mix.alpha < 1
        np.testing.assert_allclose(mix.target, a + mix.alpha * (b - a), atol=1e-12)
        assert math.isclose(sum(mix.target), 1, abs_tol=1e-12)
        assert (np.array(mix.target) >= np.minimum(a, b) - 1e-12).all()
        assert (np.array(mix.target) <= np.maximum(a, b) + 1e-12).all()
        assert np.argmax(mix.target) == a.argmax() == b.argmax()
        added[int(a.argmax())] += 1
    for k, size in enumerate(sizes):
        if size < 2:
            assert added[k] == 0
            short = size < ratio * max(sizes) - 1e-9
            assert any(f'"{CLASSES[k]}"' in note for note in made.notes()) == short
        else:
            assert size + added[k] == max(size, math.ceil(ratio * max(sizes) - 1e-9))
    assert list(made.real.values()) == sizes


def test_two_members_mix_with_each_other_and_one_is_reported():
    ids, targets_nk, class_n, _, features, _ = toy([20, 2, 1, 0])
    made = plan(ids, targets_nk, CLASSES, features, ratio=0.5, neighbours=3, seed=0)
    assert len(made.mixes) == 8
    assert all({mix.first, mix.second} == {ids[n] for n in np.flatnonzero(class_n == 1)} for mix in made.mixes)
    assert made.real == {"anger": 20, "calm": 2, "joy": 1, "fear": 0}
    assert made.wanted == {"anger": 20, "calm": 10, "joy": 10, "fear": 10}
    notes = made.notes()
    assert len(notes) == 2 and '"joy" up to 10' in notes[0] and '"fear" up to 10' in notes[1] and "has 0" in notes[1]


@pytest.mark.parametrize(("ratio", "largest", "wanted"), [(0.7, 10, 7), (0.1, 30, 3), (0.3, 11, 4), (1.0, 9, 9)])
def test_the_wanted_size_is_rounded_up_but_not_by_float_noise(ratio, largest, wanted):
    ids, targets_nk, _, _, features, _ = toy([largest, 2])
    assert plan(ids, targets_nk, CLASSES[:2], features, ratio=ratio, neighbours=1, seed=0).wanted["calm"] == wanted


def test_ratio_zero_asks_for_nothing():
    ids, targets_nk, _, _, features, asked = toy([20, 2, 1, 0])
    made = plan(ids, targets_nk, CLASSES, features, ratio=0, neighbours=3, seed=0)
    assert made.mixes == () and asked == [] and made.notes() == []


def test_the_plan_is_a_function_of_its_seed_and_survives_json():
    ids, targets_nk, _, _, features, _ = toy([40, 5, 7, 3])
    a, b, other = (plan(ids, targets_nk, CLASSES, features, ratio=0.5, neighbours=3, seed=s) for s in (7, 7, 8))
    assert a == b and a.mixes != other.mixes
    assert from_json(to_json(a), ids) == a  # floats and all
    assert all(isinstance(mix, Example) for mix in from_json(to_json(a), ids).mixes)
    nothing = plan(ids, targets_nk, CLASSES, features, ratio=0, neighbours=3, seed=7)
    assert from_json(to_json(nothing), ids) == nothing


def test_the_plan_can_be_read_by_people_and_says_what_it_adds():
    ids, targets_nk, class_n, _, features, _ = toy([20, 2, 1, 6])
    text = to_json(plan(ids, targets_nk, CLASSES, features, ratio=0.5, neighbours=3, seed=0))
    stored = json.loads(text)
    assert stored["classes"] == {
        "anger": {"real": 20, "wanted": 20, "added": 0, "after": 20},
        "calm": {"real": 2, "wanted": 10, "added": 8, "after": 10},
        "joy": {"real": 1, "wanted": 10, "added": 0, "after": 1},
        "fear": {"real": 6, "wanted": 10, "added": 4, "after": 10},
    }
    assert Counter(mix["class"] for mix in stored["mixes"]) == {"calm": 8, "fear": 4}
    for mix in stored["mixes"]:
        assert class_n[int(mix["first"][1:])] == class_n[int(mix["second"][1:])] == CLASSES.index(mix["class"])
        a, b = (targets_nk[int(mix[name][1:])] for name in ("first", "second"))
        np.testing.assert_allclose(list(mix["target"].values()), a + mix["alpha"] * (b - a), atol=1e-12)
    # A line a mix and a line a class.
    assert len(text.splitlines()) == len(stored["mixes"]) + len(CLASSES) + 10


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"mixes": [{"first": "a"}]}', '{"ratio": 1, "neighbours": 1, "seed": 0, "classes": []}']
)
def test_a_broken_plan_is_one_clear_sentence(text):
    with pytest.raises(UserError, match="not a DiME-Aug plan"):
        from_json(text, [])


def test_a_plan_of_another_dataset_is_refused_with_the_clip_that_is_missing():
    ids, targets_nk, _, _, features, _ = toy([20, 2])
    text = to_json(plan(ids, targets_nk, CLASSES[:2], features, ratio=0.5, neighbours=3, seed=0))
    with pytest.raises(UserError, match="no longer has"):
        from_json(text, ["other"])


def test_the_papers_recipe_differs_where_the_released_code_miscounts_alone():
    default, paper = (load_config(None, [f"recipe={name}"]).data.dime_aug for name in ("default", "paper"))
    # k = 3 with the clip itself among them.
    assert (default.ratio, default.neighbours) == (0.3, 3) and (paper.ratio, paper.neighbours) == (0.3, 2)


@pytest.mark.parametrize("setting", [{"ratio": 1.2}, {"ratio": -0.1}, {"neighbours": 0}])
def test_settings_out_of_range_are_refused(setting):
    ids, targets_nk, _, _, features, _ = toy([4, 2])
    with pytest.raises(UserError, match=r"data\.dime_aug"):
        plan(ids, targets_nk, CLASSES[:2], features, **({"ratio": 0.3, "neighbours": 3, "seed": 0} | setting))


def test_the_text_follows_the_clip_that_is_heard_more():
    assert [Example("a", (1.0,), "b", alpha).spoken for alpha in (0, 0.499, 0.5, 1)] == ["a", "a", "b", "b"]
    assert real_examples(["a"], np.array([[0.5, 0.5]]))[0] == Example("a", (0.5, 0.5))
    assert Example("a", (1.0,)).spoken == "a"


def test_an_utterance_without_votes_is_never_trained_on():
    with pytest.raises(UserError, match="utterance b has no distribution"):
        real_examples(["a", "b"], np.array([[0.5, 0.5], [np.nan, np.nan]]))


waves = hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32))


@given(waves, waves, st.floats(0, 1))
def test_mixed_audio_lies_between_its_parts(a_t, b_t, alpha):
    mixed = mix_audio(a_t, b_t, alpha)
    n = min(len(a_t), len(b_t))
    assert mixed.dtype == np.float32 and len(mixed) == n
    assert (mixed >= np.minimum(a_t[:n], b_t[:n]) - 1e-6).all()
    assert (mixed <= np.maximum(a_t[:n], b_t[:n]) + 1e-6).all()
    np.testing.assert_allclose(mixed, (1 - alpha) * a_t[:n].astype(float) + alpha * b_t[:n].astype(float), atol=1e-6)
    np.testing.assert_array_equal(mix_audio(a_t, b_t, 0.0), a_t[:n])
