"""The audio and the words reach loss, gradient and prediction, each of them alone."""

import dataclasses

import numpy as np
import pytest
from kit import make_batch, make_kit
from toy_runs import CHECKPOINT, toy_dataset

from aer_jax.corpora import crema_d
from aer_jax.data.batching.buckets import collate
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.data.prompt import PromptEncoder


def with_other_audio(batch):
    """Each clip's samples in another order: same length, same prompt."""
    audio_bs = batch["audio"].copy()
    for row, samples in enumerate(batch["audio_samples"]):
        quarter = samples // 4
        audio_bs[row, :samples] = 2 * np.roll(np.flip(audio_bs[row, :samples]), quarter)
    return batch | {"audio": audio_bs}


def with_other_words(batch, dataset, checkpoint, **keywords):
    """The same clips, each with the words "banana banana"."""
    prompt = PromptEncoder(checkpoint, dataset.classes, **keywords)
    samples_b = batch["audio_samples"]
    return collate(
        [audio[:samples] for audio, samples in zip(batch["audio"], samples_b, strict=True)],
        [prompt.encode("banana banana", "", int(samples)) for samples in samples_b],
        batch["target"],
        batch["row"],
        batch=len(samples_b),
        window=batch["audio"].shape[1],
        text_length=batch["tokens"].shape[1],
        pad_id=prompt.pad_id,
        prefix=batch["prefix"],
    )


def changes(kit, batch, other):
    """Relative change of loss and gradient, largest change of a predicted share."""
    (gradient, loss), (other_gradient, other_loss) = (kit.gradient(b, len(b["row"])) for b in (batch, other))
    return (
        abs(other_loss - loss) / loss,
        np.linalg.norm(other_gradient - gradient) / np.linalg.norm(gradient),
        np.abs(kit.predict(other) - kit.predict(batch)).max(),
    )


def test_audio_alone_changes_everything(still_kit, batch):
    loss, gradient, prediction = changes(still_kit, batch, with_other_audio(batch))
    assert loss > 1e-3 and gradient > 0.05 and prediction > 0.01


def test_words_alone_change_everything(still_kit, batch):
    other = with_other_words(batch, open_dataset(toy_dataset()), CHECKPOINT)
    np.testing.assert_array_equal(other["audio"], batch["audio"])
    loss, gradient, prediction = changes(still_kit, batch, other)
    assert loss > 1e-4 and gradient > 0.01 and prediction > 1e-3


def test_words_are_not_read_where_they_are_turned_off():
    dataset = open_dataset(toy_dataset())
    silent = make_batch(dataset, CHECKPOINT, transcript=False)
    other = with_other_words(silent, dataset, CHECKPOINT, transcript=False)
    np.testing.assert_array_equal(other["tokens"], silent["tokens"])


@pytest.mark.slow
@pytest.mark.real
def test_real_speech(mini_checkpoint, crema_d_root, tmp_path):
    """Four clips of CREMA-D through the pretrained stand-in."""
    corpus = crema_d.read(crema_d_root)
    some = dataclasses.replace(corpus, clips=[clip for clip in corpus.clips if clip.votes][::80])
    dataset = prepare(some, tmp_path / "dataset", ("angry", "happy", "neutral", "sad"))
    batch = make_batch(dataset, mini_checkpoint, rows=4)
    kit = make_kit(mini_checkpoint, dropout=False)
    loss, gradient, prediction = changes(kit, batch, with_other_audio(batch))
    assert loss > 1e-3 and gradient > 0.05 and prediction > 0.01
    loss, gradient, prediction = changes(kit, batch, with_other_words(batch, dataset, mini_checkpoint))
    assert loss > 1e-4 and gradient > 0.01 and prediction > 1e-3
