"""Clips of noise with known lengths, and streams of batches over them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from aer_jax.base.lengths import frame_count, token_count
from aer_jax.data.batching.batches import train_batches
from aer_jax.data.examples import real_examples

K = 3


class FakeDataset:
    """Noise clips of known lengths; the first sample of each tells which one it is."""

    path = "fake"

    def __init__(self, lengths):
        self.clips = {}
        self.utterances = {}
        for n, samples in enumerate(lengths):
            audio = np.random.default_rng(n).normal(0, 0.1, samples).astype(np.float32)
            self.clips[f"u{n}"] = audio
            self.utterances[f"u{n}"] = SimpleNamespace(
                transcript="a" * (n % 23), speaker=f"s{n % 4}", seconds=round(samples / 16_000, 3)
            )

    def audio(self, id):
        return self.clips[id]


class FakePrompt:
    """One token a letter, and those of the audio."""

    pad_id = 0
    prefix = np.zeros(0, np.int32)

    def refuse_long(self, clip, tokens):
        assert tokens < 4096

    def encode(self, transcript, speaker, samples):
        text = [int(speaker[1:]) + 100, *(7 for _ in transcript)]
        return np.array([*text, *[9] * token_count(frame_count(samples))], np.int32)


def stream(dataset, targets, examples=None, **settings):
    ids = list(dataset.clips)
    settings = {
        "shapes": 4, "batch": 8, "seed": 3, "augment": 0.0, "sampling": "uniform", "max_seconds": 30.0,
    } | settings  # fmt: skip
    return train_batches(examples or real_examples(ids, targets), dataset, FakePrompt(), **settings)


def first(train, batches):
    iterator = iter(train.iter_dataset)
    return [next(iterator) for _ in range(batches)]


def rows_of_epoch(train, epoch):
    """What each batch of an epoch holds, without reading its audio."""
    return [plan.draws.rows for plan in train._plan(epoch)]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        assert a[key].dtype == b[key].dtype


def check_content(batch, dataset, examples, shapes):
    """Everything that the interface promises about one batch."""
    b, s = batch["audio"].shape
    assert (s, batch["tokens"].shape[1]) in shapes
    dtypes = {key: str(value.dtype) for key, value in batch.items()}
    assert dtypes == {
        "audio": "float32", "audio_samples": "int32", "prefix": "int32", "tokens": "int32", "token_mask": "bool",
        "target": "float32", "weight": "float32", "row": "int32",
    }  # fmt: skip
    for i in range(b):
        samples = batch["audio_samples"][i]
        assert samples + 320 <= s and not batch["audio"][i, samples:].any()
        assert batch["token_mask"][i].any()
        row = batch["row"][i]
        if row == -1:
            assert batch["weight"][i] == 0 and batch["audio"][i].any()
            continue
        example = examples[row]
        assert batch["weight"][i] == np.float32(example.weight)
        spoken = dataset.utterances[example.spoken]
        tokens = FakePrompt().encode(spoken.transcript, spoken.speaker, int(samples))
        np.testing.assert_array_equal(batch["tokens"][i][batch["token_mask"][i]], tokens)
        assert not batch["tokens"][i, len(tokens) :].any()
        np.testing.assert_allclose(batch["target"][i], example.target, rtol=1e-6)
