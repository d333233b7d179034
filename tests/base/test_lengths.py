"""Lengths equal those of transformers' feature extractor and audio tower."""

import jax
import numpy as np
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from aer_jax.base.lengths import HOP, MAX_SAMPLES, SAMPLE_RATE, frame_count, state_count, token_count
from aer_jax.data.batching.shapes import window_for
from aer_jax.models.log_mel import log_mel

SAMPLES = np.array([1, 159, 160, 161, 320, 321, 480, 1600, 1601, 22_033, 64_000, 479_999, MAX_SAMPLES])


def test_frames_are_those_of_the_feature_extractor():
    extractor = WhisperFeatureExtractor(feature_size=80)
    clips = [np.zeros(n, np.float32) for n in SAMPLES]
    mask = extractor(clips, sampling_rate=SAMPLE_RATE, return_attention_mask=True)["attention_mask"]
    np.testing.assert_array_equal(frame_count(SAMPLES), np.sum(mask, axis=1))
    assert (extractor.sampling_rate, extractor.hop_length, extractor.n_samples) == (SAMPLE_RATE, HOP, MAX_SAMPLES)


def test_states_and_tokens_are_those_of_the_audio_tower():
    frames = np.arange(1, 3001)
    states, tokens = Qwen2AudioEncoder._get_feat_extract_output_lengths(None, torch.from_numpy(frames))
    np.testing.assert_array_equal(state_count(frames), states)
    np.testing.assert_array_equal(token_count(frames), tokens)
    assert token_count(frame_count(MAX_SAMPLES)) == 750
    assert [token_count(n) for n in (10, 11)] == [2, 3] and isinstance(token_count(10), int)


def test_a_clip_feels_nothing_of_its_shortest_windows_end():
    """All mel frames that its last state reaches are those of the 30 s window, whatever the clip's length."""
    last_state = state_count(frame_count(SAMPLES)) - 1
    # conv2, of stride 2, looks one conv1 output ahead, conv1 one mel frame.
    reach = 2 * last_state + 2
    rng = np.random.default_rng(0)
    hear = jax.jit(log_mel, static_argnums=1)
    for samples in [8000 + rest for rest in (0, 1, 39, 40, 41, 159, 160, 161, 200, 319, 320, 639)]:
        window = int(window_for(samples))
        assert window % HOP == 0 and (frame_count(samples) + 2) * HOP <= window < (frame_count(samples) + 6) * HOP
        audio = np.zeros((1, MAX_SAMPLES), np.float32)
        audio[0, :samples] = rng.normal(0, 0.1, samples)
        short, long = hear(audio[:, :window], 80), hear(audio, 80)
        np.testing.assert_allclose(short, long[:, : short.shape[1]], atol=1e-6)
    assert (reach < frame_count(SAMPLES) + 2).all()
