"""A prediction depends on its clip and its words alone: not on batch, neighbours, padding, side or window."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from our_model import load_ours

from aer_jax.base.lengths import TAIL
from aer_jax.data.batching.buckets import collate
from aer_jax.data.prompt import PromptEncoder
from aer_jax.training.step import model_batch

CLASSES = ("angry", "happy", "neutral", "sad")
TOLERANCE = 1e-5  # of a probability, float32
WINDOWS = (16_000, 28_800)  # samples; the longest clip ends TAIL before the shorter window's end
BATCHES = (1, 3, 4)
HEADS = ("paper", "readout")
EXAMPLES = 60
# Alone, in a window and a text length that no batch has: what every batch is held against.
ALONE_WINDOW, ALONE_TEXT = 40_320, 184
TEXT = 176
WORDS = ("", "It's eleven o'clock.", "Don't forget a jacket.", "We'll stop in a couple of minutes.")


def sound(samples: int, seed: int) -> np.ndarray:
    """Noise and a tone under a slow envelope, float32 [samples]."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16_000
    tone = np.sin(2 * np.pi * rng.uniform(80, 2000) * t + 3 * np.sin(2 * np.pi * rng.uniform(1, 6) * t))
    return (rng.uniform(0.02, 0.4) * (tone + 0.3 * rng.standard_normal(samples)) * np.abs(np.sin(4 * t))).astype("f4")


clips = st.builds(
    lambda samples, seed, words: (sound(samples, seed), words),
    st.one_of(st.sampled_from([400, 1600, WINDOWS[0] - TAIL]), st.integers(400, WINDOWS[0] - TAIL)),
    st.integers(0, 10_000),
    st.sampled_from(WORDS),
)


@st.composite
def batches(draw):
    """Clips, a window, a padding side, and what the padding holds; the last row may be a filler."""
    rows = draw(st.sampled_from(BATCHES))
    real = draw(st.lists(clips, min_size=max(1, rows - 1), max_size=rows))
    return (
        rows,
        real,
        draw(st.sampled_from(WINDOWS)),
        draw(st.sampled_from(["right", "left"])),
        draw(st.integers(0, 511)),
    )


@pytest.fixture(scope="module")
def predict(tiny_checkpoint):
    """(clips, rows, window, text length, side, padding token) -> distributions [clips, heads, classes]."""
    models = [load_ours(tiny_checkpoint, len(CLASSES), head=head) for head in HEADS]
    encoder = PromptEncoder(tiny_checkpoint, CLASSES)
    graphdef, state = nnx.split(models)

    @jax.jit
    def run(state, batch):
        paper, readout = nnx.merge(graphdef, state)
        features = paper.features(batch)
        return jax.nn.softmax(jnp.stack([paper.emotion_head(features), readout.emotion_head(features)], axis=1))

    def predict(clips, rows, window, length, side, pad_id):
        batch = collate(
            [audio for audio, _ in clips],
            [encoder.encode(words, "", len(audio)) for audio, words in clips],
            np.zeros((len(clips), len(CLASSES))),
            range(len(clips)),
            batch=rows,
            window=window,
            text_length=length,
            pad_id=encoder.pad_id if pad_id == encoder.audio_id else pad_id,
        )
        if side == "left":
            shift_b = (~batch["token_mask"]).sum(axis=1)
            for name in ("tokens", "token_mask"):
                batch[name] = np.stack([np.roll(row, shift) for row, shift in zip(batch[name], shift_b, strict=True)])
        return np.asarray(run(state, model_batch(batch)))[: len(clips)]

    return predict


def test_a_prediction_depends_on_its_clip_alone(predict, measured):
    errors, distributions = [], []

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    @given(batches())
    def check(drawn):
        rows, real, window, side, pad_id = drawn
        together = predict(real, rows, window, TEXT, side, pad_id)
        alone = np.concatenate([predict([clip], 1, ALONE_WINDOW, ALONE_TEXT, "right", 0) for clip in real])
        errors.append(np.abs(together - alone).max(axis=(0, 2)))
        distributions.extend(alone)
        np.testing.assert_allclose(together, alone, rtol=0, atol=TOLERANCE)

    check()
    spread_h = np.std(distributions, axis=0).mean(axis=1)
    assert spread_h.min() > 0.02, "the predictions must differ for this test to see anything"
    for head, error, spread in zip(HEADS, np.max(errors, axis=0), spread_h, strict=True):
        measured(
            f"{len(errors)} random batches against each clip alone, {head} head: a probability moves by {error:.1e} "
            f"at most (limit {TOLERANCE:.0e}); deviation between clips {spread:.2f}"
        )
