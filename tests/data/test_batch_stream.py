"""A stream of batches is a function of its seed: shared by hosts, told without reading, taken up at any point."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_clips import FakePrompt, assert_same, first, stream

from aer_jax.data.batching.batches import Host, evaluation_batches
from aer_jax.data.examples import Example, real_examples


def test_the_stream_is_a_function_of_its_seed(dataset, targets):
    a, b, other = (first(stream(dataset, targets, seed=seed, augment=1.0), 5) for seed in (3, 3, 4))
    for x, y in zip(a, b, strict=True):
        assert_same(x, y)
    assert any((x["row"] != y["row"]).any() for x, y in zip(a, other, strict=True))


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_every_batch(dataset, targets, hosts):
    """Side by side, what the hosts read is what one host reads, padding rows included; shapes agree at every step."""
    settings = {"augment": 0.5, "sampling": "balanced"}
    alone = stream(dataset, targets, **settings)
    shared = [stream(dataset, targets, **settings, host=Host(i, hosts)) for i in range(hosts)]
    assert {train.steps_per_epoch for train in shared} == {alone.steps_per_epoch}
    parts = [first(train, alone.steps_per_epoch + 1) for train in shared]
    for step, whole in enumerate(first(alone, alone.steps_per_epoch + 1)):
        assert all(len(part[step]["row"]) == 8 // hosts for part in parts)
        assert_same({key: np.concatenate([part[step][key] for part in parts]) for key in whole}, whole)


def test_evaluation_is_shared_too(dataset, targets):
    ids = list(dataset.clips)[:5]  # the second host has padding rows alone
    settings = {"shapes": 2, "batch": 12, "max_seconds": 30.0}
    read = [
        list(evaluation_batches(ids, dataset, FakePrompt(), targets[:5], **settings, host=Host(i, 2))) for i in (0, 1)
    ]
    (whole,) = evaluation_batches(ids, dataset, FakePrompt(), targets[:5], **settings)
    assert_same({key: np.concatenate([read[0][0][key], read[1][0][key]]) for key in whole}, whole)
    assert not read[1][0]["weight"].any() and read[1][0]["audio"].any(axis=1).all()


def test_what_is_in_a_batch_can_be_told_without_reading_it(dataset, targets):
    """Of real clips and mixes, with their changes, in any epoch."""
    ids = list(dataset.clips)
    mixes = [Example(ids[i], tuple(targets[i]), ids[i + 1], 0.25) for i in range(9)]
    examples = real_examples(ids, targets) + mixes
    train = stream(dataset, targets, examples, augment=0.5)
    seen = set()
    for step in (*range(train.steps_per_epoch), 3 * train.steps_per_epoch + 1):
        batch, clips = train.read(step), train.contents(step)
        rows = batch["row"][batch["row"] >= 0]
        assert [clip["utterance"] for clip in clips] == [examples[row].first for row in rows]
        assert [clip.get("mixed_with") for clip in clips] == [examples[row].second for row in rows]
        for row, clip, samples in zip(rows, clips, batch["audio_samples"], strict=False):
            unchanged = clip["semitones"] == 0 and clip["tempo"] == 1
            mixed = examples[row].second is not None
            assert mixed == (clip.get("share") == 0.25)
            if unchanged and not mixed:
                assert samples == len(dataset.clips[clip["utterance"]])
            seen.add((unchanged, mixed))
    assert len(seen) == 4


def test_orbax_restores_to_the_very_next_batch(dataset, targets, tmp_path):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from orbax.checkpoint.experimental import v1 as ocp

    settings = {"augment": 1.0, "sampling": "balanced"}
    train = stream(dataset, targets, **settings)
    through = train.steps_per_epoch - 2  # the batches after it cross into the next epoch
    iterator = iter(train.iter_dataset)
    for _ in range(through):
        next(iterator)
    with ocp.training.Checkpointer(tmp_path) as checkpointer:
        saved = checkpointer.save_checkpointables_async(
            through, {"state": {"step": np.array(through)}, "data": iterator}
        )
        # Going on while the checkpoint is being written must not leak into it.
        want = [next(iterator) for _ in range(6)]
        assert saved.result()

    again = iter(stream(dataset, targets, **settings).iter_dataset)
    with ocp.training.Checkpointer(tmp_path) as checkpointer:
        checkpointer.load_checkpointables(through, {"state": {"step": np.array(0)}, "data": again})
    for batch in want:
        assert_same(batch, next(again))


@settings(max_examples=12)
@given(st.integers(0, 40), st.sampled_from([8, 32]), st.floats(0, 1), st.sampled_from(["uniform", "balanced"]))
def test_an_iterators_state_is_the_very_next_batch(dataset, targets, position, batch, augment, sampling):
    """Taken up again at any step of any epoch, by a stream made anew."""
    kept = {"batch": batch, "augment": augment, "sampling": sampling}
    iterator = iter(stream(dataset, targets, **kept).iter_dataset)
    for _ in range(position):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    again = iter(stream(dataset, targets, **kept).iter_dataset)
    again.set_state(state)
    for _ in range(2):
        assert_same(next(iterator), next(again))
