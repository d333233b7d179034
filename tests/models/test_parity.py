"""Each module, then the whole, equals transformers' Qwen2-Audio in float32 on a random tiny checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_qwen2_audio import (
    AUDIO_TOKEN,
    hear,
    hidden_states,
    load_ours,
    load_torch,
    make_batch,
    pad_to_30_s,
    prompt,
    read,
    reference,
    relative_error,
    unequal_batch,
    valid,
    voice,
)
from transformers import WhisperFeatureExtractor

from aer_jax.base.lengths import MAX_SAMPLES, SAMPLE_RATE, frame_count, state_count, token_count
from aer_jax.models.log_mel import log_mel


@pytest.fixture(scope="module")
def right(theirs):
    """A batch padded on the right, and what transformers makes of it."""
    clips, batch = unequal_batch("right")
    return batch, reference(theirs, clips, batch)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("implementation", ["torch", "np"])
def test_parity_log_mel(bins, implementation, parity):
    _, batch = unequal_batch("right", seconds=(0.1, 1.37, 4.0, 11.3, 29.95))
    extractor = WhisperFeatureExtractor(feature_size=bins)
    padded = np.array(pad_to_30_s(batch).audio)
    theirs = getattr(extractor, f"_{implementation}_extract_fbank_features")(padded, "cpu").transpose(0, 2, 1)
    ours = jax.jit(log_mel, static_argnums=1)(padded, bins)
    error = float(np.abs(ours - theirs).max())
    parity(f"log-mel, {bins} bins, transformers' {implementation} version", error, kind="absolute")


def test_parity_audio_tower(ours, right, parity):
    batch, theirs = right
    frames_b = frame_count(batch.audio_samples)
    audio = hear(ours.audio_tower, theirs.mel_bfm, frames_b)
    where = valid(token_count(frames_b), 750)
    parity(f"audio tower at 30 s, {ours.mel_bins} mels", relative_error(audio.states_btd, theirs.audio_btd, where))

    states_b = state_count(frames_b)
    layers = [
        [np.concatenate([x_td[:n].mean(0), x_td[:n].std(0)]) for x_td, n in zip(x_btd, states_b, strict=True)]
        for x_btd in theirs.layers_lbtd
    ]
    parity(f"audio layers' means and deviations, {ours.mel_bins} mels", relative_error(audio.statistics_lbe, layers))


def test_parity_audio_tower_in_a_short_window(ours, right, parity):
    batch, theirs = right
    frames_b = frame_count(batch.audio_samples)
    short_bfm = theirs.mel_bfm[:, : batch.audio.shape[1] // 160]
    audio = hear(ours.audio_tower, short_bfm, frames_b)
    time = audio.states_btd.shape[1]
    assert time < 300
    where = valid(token_count(frames_b), time)
    parity(
        f"audio tower in a short window, {ours.mel_bins} mels",
        relative_error(audio.states_btd, theirs.audio_btd[:, :time], where),
    )


def test_parity_projector(ours, right, parity):
    _, theirs = right
    parity(
        f"projector, {ours.mel_bins} mels",
        relative_error(ours.multi_modal_projector(jnp.asarray(theirs.audio_btd)), theirs.projected_bth),
    )


def test_parity_language_model(ours, right, parity):
    batch, expected = right
    hidden_bth = read(ours.language_model, expected.embeddings_bth)
    where = np.asarray(batch.token_mask)
    assert not where.all(axis=1).any()
    parity(f"language model, {ours.mel_bins} mels", relative_error(hidden_bth, expected.hidden_bth, where))


def test_parity_output_layer(ours, right, parity):
    _, theirs = right
    parity(
        f"output layer, {ours.mel_bins} mels",
        relative_error(ours.logits(jnp.asarray(theirs.hidden_bth)), theirs.logits_btv),
    )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("window", ["short", "30 s"])
def test_parity_whole(ours, theirs, side, window, parity):
    clips, batch = unequal_batch(side)
    expected = reference(theirs, clips, batch)
    ours_batch = batch if window == "short" else pad_to_30_s(batch)
    hidden_bth = hidden_states(ours, ours_batch)
    where = np.asarray(batch.token_mask)
    label = f"waveform to hidden states, {window} window, {side} padding"
    parity(f"{label}, {ours.mel_bins} mels", relative_error(hidden_bth, expected.hidden_bth, where))
    parity(
        f"{label}, {ours.mel_bins} mels, logits", relative_error(ours.logits(hidden_bth), expected.logits_btv, where)
    )


def test_parity_of_the_shortest_window_of_any_clip(tiny_80, parity):
    """A window just longer than the clip changes nothing that is valid, whatever the clip's length."""
    ours, theirs, worst = load_ours(tiny_80), load_torch(tiny_80), []

    @settings(max_examples=6, derandomize=True, database=None)
    @given(st.integers(SAMPLE_RATE // 10, MAX_SAMPLES), st.integers(0, 99))
    def check(samples, seed):
        clip = voice(samples / SAMPLE_RATE + 1e-6, seed)[:samples]
        batch = make_batch([clip], [prompt(samples, 5, AUDIO_TOKEN, seed)], "right")
        expected = reference(theirs, [clip], batch).hidden_bth
        hidden_bth = hidden_states(ours, batch)
        where = np.asarray(batch.token_mask)
        worst.append(relative_error(hidden_bth, expected, where))
        assert worst[-1] <= 1e-4

    check()
    assert len(worst) >= 6
    parity(f"worst of {len(worst)} clip lengths in their shortest windows, {ours.mel_bins} mels", max(worst))


def test_neither_key_nor_remat_changes_the_base(tiny_80):
    """The frozen base has no dropout of its own, and recomputing a layer gives the same layer."""
    model = load_ours(tiny_80)
    _, batch = unequal_batch("right", seconds=(0.5, 0.9))
    plain = hidden_states(model, batch)
    np.testing.assert_array_equal(plain, hidden_states(model, batch, jax.random.key(0)))
    model.audio_tower.remat = model.language_model.remat = "full"
    np.testing.assert_allclose(plain, hidden_states(model, batch), atol=1e-5)
