"""Lengths equal those of transformers' feature extractor and audio tower."""

import numpy as np
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from aer_jax.lengths import HOP, MAX_SAMPLES, SAMPLE_RATE, TAIL, frame_count, state_count, token_count
from aer_jax.models.log_mel import N_FFT

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


def test_the_tail_covers_all_that_a_clips_last_state_reaches():
    """conv2 and conv1 look one frame ahead each, of 20 and 10 ms, and a mel frame half its window."""
    reach = N_FFT // 2 + 3 * HOP
    assert reach <= TAIL
