"""Batches: fixed shapes, and every clip where it belongs."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_clips import FakeDataset, FakePrompt, K, check_content, first, rows_of_epoch, stream
from scipy import stats

from aer_jax.base.lengths import frame_count, token_count
from aer_jax.data import dime_aug
from aer_jax.data.batching.batches import Host, collate, evaluation_batches, train_batches
from aer_jax.data.dime_features import features
from aer_jax.data.examples import Example, mix_audio, real_examples, weighed
from aer_jax.errors import UserError
from aer_jax.labels.votes import Votes, normalise


def test_uniform_epoch_visits_every_example_once_and_carries_its_content(dataset, targets):
    train = stream(dataset, targets)
    examples = real_examples(list(dataset.clips), targets)
    batches = first(train, 3 * train.steps_per_epoch)
    orders = []
    for epoch in range(3):
        part = batches[epoch * train.steps_per_epoch : (epoch + 1) * train.steps_per_epoch]
        rows = np.concatenate([batch["row"] for batch in part])
        assert sorted(rows[rows >= 0]) == list(range(len(examples)))
        assert sum(batch["weight"].sum() for batch in part) == len(examples)
        orders.append(rows.tolist())
        for batch in part:
            check_content(batch, dataset, examples, train.shapes)
            for i in np.flatnonzero(batch["row"] >= 0):
                clip = dataset.clips[examples[batch["row"][i]].first]
                np.testing.assert_array_equal(batch["audio"][i, : batch["audio_samples"][i]], clip)
    assert orders[0] != orders[1] != orders[2]
    assert len(train.shapes) == 4
    assert all(s % 320 == 0 and t % 8 == 0 for s, t in train.shapes)
    assert train.cut == 0


def test_balanced_sampling_draws_classes_equally_often(dataset, targets):
    train = stream(dataset, targets, sampling="balanced")
    class_n = targets.argmax(axis=1)
    epochs, n = 20, len(class_n)
    expected_n = n / K / np.bincount(class_n)[class_n]
    drawn, visited = np.zeros(K, int), Counter()
    for epoch in range(epochs):
        visits_n = np.bincount(np.concatenate(rows_of_epoch(train, epoch)), minlength=n)
        # Exact: as often as expected, rounded up or down, for every example and every class.
        assert ((visits_n == np.floor(expected_n)) | (visits_n == np.ceil(expected_n))).all()
        counts = np.bincount(class_n, weights=visits_n)
        assert counts.sum() == n and np.abs(counts - n / K).max() <= 1
        drawn += counts.astype(int)
        visited.update(np.flatnonzero(visits_n).tolist())
    assert stats.chisquare(drawn).pvalue > 0.01
    assert len(visited) == n  # no example is shut out
    # The same test must see that uniform sampling is not balanced.
    assert stats.chisquare(epochs * np.bincount(class_n)).pvalue < 1e-6
    for batch in first(train, train.steps_per_epoch):
        check_content(batch, dataset, real_examples(list(dataset.clips), targets), train.shapes)


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_every_epoch_has_the_same_number_of_batches(dataset, targets, sampling):
    train = stream(dataset, targets, sampling=sampling, augment=0.5)
    sizes = [[len(rows) for rows in rows_of_epoch(train, epoch)] for epoch in range(10)]
    assert {len(epoch) for epoch in sizes} == {train.steps_per_epoch} == {-(-len(dataset.clips) // 8)}
    # All batches are full but one, and that is of the shortest shape.
    for epoch, rows in enumerate(sizes):
        assert sorted(rows) == [len(dataset.clips) % 8, *[8] * (len(rows) - 1)]
        assert train._plan(epoch)[int(np.argmin(rows))].shape == min(plan.shape for plan in train._plan(epoch))


def test_augmentation_changes_audio_but_never_leaves_the_shapes(dataset, targets):
    train = stream(dataset, targets, augment=1.0, shapes=2)
    examples = real_examples(list(dataset.clips), targets)
    changed = lengths = rows = 0
    for batch in first(train, train.steps_per_epoch):
        check_content(batch, dataset, examples, train.shapes)
        assert np.isfinite(batch["audio"]).all()
        for i in np.flatnonzero(batch["row"] >= 0):
            clip = dataset.clips[examples[batch["row"][i]].first]
            heard = batch["audio"][i, : batch["audio_samples"][i]]
            rows += 1
            lengths += len(heard) != len(clip)
            changed += len(heard) != len(clip) or not np.array_equal(heard, clip)
    pitches = [np.concatenate([plan.draws.semitones for plan in train._plan(epoch)]) for epoch in (0, 1)]
    assert (np.sort(pitches[0]) != np.sort(pitches[1])).any()  # each epoch draws anew
    # One third each: pitch, tempo, nothing; five standard deviations.
    assert abs(changed / rows - 2 / 3) < 5 * np.sqrt(2 / 9 / rows)
    assert abs(lengths / rows - 1 / 3) < 5 * np.sqrt(2 / 9 / rows)


def computed(batches):
    """Frames and positions of whole batches: all, and those of clips that are trained on."""
    shapes = [(batch["audio"].size // 160, batch["tokens"].size) for batch in batches]
    needed = [
        (frame_count(batch["audio_samples"])[real].sum(), batch["token_mask"][real].sum())
        for batch in batches
        for real in [batch["weight"] > 0]
    ]
    return np.sum(shapes, axis=0), np.sum(needed, axis=0)


@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_the_padding_share_is_that_of_the_batches(dataset, targets, sampling):
    train = stream(dataset, targets, augment=0.5, sampling=sampling)
    every, needed = computed(first(train, train.steps_per_epoch))
    # Durations are known to a millisecond, and a tenth of a frame.
    np.testing.assert_allclose(train.padding, 1 - needed / every, atol=2e-3)
    facts = train.facts()
    assert facts["padding"] == pytest.approx(train.padding._asdict(), abs=1e-4)
    assert facts["steps_per_epoch"] == train.steps_per_epoch and len(facts["shapes"]) == len(train.shapes)
    assert f"{train.padding.frames:.1%} of audio frames" in train.sentence()


def test_a_long_prompt_fits_when_its_clip_is_slowed_down():
    """The longest prompt need not be the longest clip's; shapes must hold it in every epoch."""
    utterances = {
        f"u{i}": SimpleNamespace(transcript="a" * letters, speaker="s0", seconds=seconds)
        for i, (seconds, letters) in enumerate([(20.0, 0), *[(8.0, 400)] * 15])
    }
    dataset = SimpleNamespace(path="lengths", clips=utterances, utterances=utterances)
    train = stream(dataset, np.full((16, K), 1 / K), augment=1.0)
    for epoch in range(8):
        for plan in train._plan(epoch):
            samples_n = [utterances[f"u{row}"].seconds * 16_000 for row in plan.draws.rows] / plan.draws.tempo
            letters_n = np.array([len(utterances[f"u{row}"].transcript) for row in plan.draws.rows])
            assert (1 + letters_n + token_count(frame_count(samples_n)) <= train.shapes[plan.shape][1]).all()


def test_mixes_are_interpolated_and_carry_the_chosen_text(dataset):
    target = (0.2, 0.3, 0.5)
    mixes = weighed([Example("u1", target, "u22", a) for a in (0.1, 0.49, 0.5, 0.9)], {"u1": 1.0, "u22": 0.5})
    train = stream(dataset, None, mixes, batch=5)
    (batch,) = first(train, 1)
    check_content(batch, dataset, mixes, train.shapes)
    np.testing.assert_allclose(batch["weight"], [*(1 - mixes[row].alpha / 2 for row in batch["row"][:4]), 0], rtol=1e-6)
    for i, row in enumerate(batch["row"][:4]):
        want = mix_audio(dataset.clips["u1"], dataset.clips["u22"], mixes[row].alpha)
        np.testing.assert_array_equal(batch["audio"][i, : batch["audio_samples"][i]], want)
        letters = int((batch["tokens"][i] == 7).sum())
        assert letters == (1 if mixes[row].alpha < 0.5 else 22)


def test_long_clips_are_cut_and_counted(dataset, targets):
    train = stream(dataset, targets, max_seconds=1.0, augment=1.0)
    assert train.cut == sum(len(clip) > 16_000 for clip in dataset.clips.values()) > 0
    for batch in first(train, train.steps_per_epoch):
        assert batch["audio_samples"].max() <= 16_000
    assert max(s for s, _ in train.shapes) == 16_640  # and what must follow the last frame, in steps of 640


def test_thirty_seconds_fill_the_longest_window():
    dataset = FakeDataset([500_000])
    train = stream(dataset, np.ones((1, K)) / K, batch=1)
    assert [s for s, _ in train.shapes] == [480_000]
    assert train.read(0)["audio_samples"].tolist() == [480_000]


def test_evaluation_visits_every_utterance_once_unchanged(dataset, targets):
    ids = list(dataset.clips)[::-1]
    batches = evaluation_batches(ids, dataset, FakePrompt(), targets, shapes=3, batch=8, max_seconds=30.0)
    seen = []
    for _ in range(2):  # it can be gone through again
        seen = []
        for batch in batches:
            check_content(batch, dataset, real_examples(ids, targets), batches.shapes)
            for i in np.flatnonzero(batch["weight"]):
                clip = dataset.clips[ids[batch["row"][i]]]
                np.testing.assert_array_equal(batch["audio"][i, : batch["audio_samples"][i]], clip)
                seen.append(int(batch["row"][i]))
    assert sorted(seen) == list(range(len(ids)))
    shapes = [(batch["audio"].shape[1], batch["tokens"].shape[1]) for batch in batches]
    assert shapes == sorted(shapes, reverse=True) and len(shapes) == len(batches) == -(-len(ids) // 8)


def test_collate_fills_up_with_harmless_rows():
    audio = [np.ones(3, np.float32), np.ones(2, np.float32)]
    tokens = [np.array([5, 6], np.int32), np.array([7], np.int32)]
    batch = collate(
        audio, tokens, np.eye(2), [4, 2], batch=4, window=8, text_length=3, pad_id=1
    )  # fmt: skip
    np.testing.assert_array_equal(batch["row"], [4, 2, -1, -1])
    np.testing.assert_array_equal(batch["weight"], [1, 1, 0, 0])
    np.testing.assert_array_equal(batch["tokens"], [[5, 6, 1], [7, 1, 1], [5, 6, 1], [5, 6, 1]])
    np.testing.assert_array_equal(batch["token_mask"].sum(axis=1), [2, 1, 2, 2])
    np.testing.assert_array_equal(batch["audio_samples"], [3, 2, 3, 3])
    np.testing.assert_array_equal(batch["audio"].sum(axis=1), [3, 2, 3, 3])
    with pytest.raises(ValueError, match="batch of 1"):
        collate(audio, tokens, np.eye(2), [4, 2], batch=1, window=8, text_length=3, pad_id=1)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1_600, 500_000), st.integers(0, 400)), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 4),
    st.floats(0, 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 3),
)
def test_any_epoch_of_any_lengths_visits_each_once_in_shapes_that_hold_it(lengths, batch, count, augment, seed, epoch):
    """Without reading audio: the plan alone decides."""
    utterances = {
        f"u{i}": SimpleNamespace(transcript="a" * letters, speaker="s0", seconds=samples / 16_000)
        for i, (samples, letters) in enumerate(lengths)
    }
    dataset = SimpleNamespace(path="lengths", clips=utterances, utterances=utterances)
    train = stream(
        dataset, np.full((len(lengths), K), 1 / K), shapes=count, batch=batch, augment=augment, seed=seed
    )  # fmt: skip
    plans = train._plan(epoch)
    assert sorted(np.concatenate([plan.draws.rows for plan in plans])) == list(range(len(lengths)))
    assert len(train.shapes) <= count and len(plans) == train.steps_per_epoch == -(-len(lengths) // batch)
    for plan in plans:
        window, tokens = train.shapes[plan.shape]
        for row, tempo in zip(plan.draws.rows, plan.draws.tempo, strict=True):
            samples, letters = lengths[row]
            samples = min(round(min(samples, 480_000) / tempo), 480_000)
            assert window == 480_000 or window >= samples + 320
            assert tokens >= 1 + letters + token_count(frame_count(samples))
    assert min(train.padding) >= 0 and max(train.padding) < 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_seconds": 31.0}, "at most 30 s"),
        ({"max_seconds": 0.0}, "at most 30 s"),
        ({"augment": 1.5}, "probability"),
        ({"shapes": -1}, "at least one row, and one shape"),
        ({"seed": -1}, "seed"),
        ({"host": Host(0, 3)}, "cannot be shared by 3 hosts"),
    ],
)
def test_settings_out_of_range_are_refused(dataset, targets, settings, says):
    with pytest.raises(UserError, match=says):
        stream(dataset, targets, **settings)


def test_no_utterances_is_an_error(dataset):
    with pytest.raises(UserError, match="no utterances"):
        evaluation_batches([], dataset, FakePrompt(), np.zeros((0, K)), shapes=2, batch=4, max_seconds=30.0)


def test_audio_longer_than_promised_is_an_error():
    dataset = FakeDataset([40_000])
    dataset.utterances["u0"].seconds = 1.0
    with pytest.raises(UserError, match="prepare the dataset again"):
        stream(dataset, np.ones((1, K)) / K).read(0)


@pytest.fixture(scope="module")
def toy_dataset(tmp_path_factory):
    """A prepared dataset directory with its record store."""
    from aer_jax.corpora.toy import corpus as toy
    from aer_jax.data.preparation.prepare import prepare

    return prepare(toy.generate(clips=60, speakers=6), tmp_path_factory.mktemp("data") / "toy")


class LettersPrompt(FakePrompt):
    def refuse_long(self, clip, tokens):
        assert tokens < 4096

    def encode(self, transcript, speaker, samples):
        return np.array([*map(ord, transcript), *[9] * token_count(frame_count(samples))], np.int32)


def test_from_a_dataset_directory_through_dime_aug_to_batches(toy_dataset):
    ids = toy_dataset.splits["train"]
    targets_nk = normalise(Votes(toy_dataset.votes).counts(ids, toy_dataset.classes))
    plan = dime_aug.plan(
        ids, targets_nk, toy_dataset.classes, partial(features, toy_dataset), ratio=0.9, neighbours=3, seed=0
    )
    examples = real_examples(ids, targets_nk) + list(plan.mixes)
    assert len(examples) > len(ids)
    settings = {"shapes": 3, "batch": 8, "seed": 0, "augment": 0.5, "sampling": "balanced", "max_seconds": 30.0}
    train = train_batches(examples, toy_dataset, LettersPrompt(), **settings)
    for batch in first(train, train.steps_per_epoch + 1):
        assert (batch["audio"].shape[1], batch["tokens"].shape[1]) in train.shapes
        for i in np.flatnonzero(batch["weight"]):
            example = examples[batch["row"][i]]
            words = "".join(map(chr, batch["tokens"][i][batch["token_mask"][i]])).rstrip("\t")
            assert words == toy_dataset.utterances[example.spoken].transcript
            np.testing.assert_allclose(batch["target"][i], example.target, rtol=1e-6)
            assert batch["audio"][i].std() > 1e-3

    test_ids = toy_dataset.splits["test"]
    held_out = evaluation_batches(
        test_ids, toy_dataset, LettersPrompt(), np.ones((len(test_ids), 4)), shapes=3, batch=8, max_seconds=30.0
    )
    for batch in held_out:
        for i in np.flatnonzero(batch["weight"]):
            clip = toy_dataset.audio(test_ids[batch["row"][i]])
            np.testing.assert_array_equal(batch["audio"][i, : batch["audio_samples"][i]], clip)
