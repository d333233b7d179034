"""The whole model with pretrained weights on real speech equals transformers' in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_qwen2_audio import (
    hear,
    hidden_states,
    load_ours,
    load_torch,
    make_batch,
    read,
    reference,
    relative_error,
    valid,
)

from aer_jax.base.lengths import frame_count, token_count
from aer_jax.data.audio.read import read_audio, to_16k
from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.log_mel import log_mel

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def clips(crema_d_root):
    """The shortest, a middling and the longest of the first two hundred recordings."""
    files = sorted((crema_d_root / "AudioWAV").glob("*.wav"))[:200]
    clips = sorted((to_16k(read_audio(file)) for file in files), key=len)
    return [clips[100], clips[0], clips[-1]]


@pytest.fixture(scope="module")
def models(mini_checkpoint):
    return load_ours(mini_checkpoint), load_torch(mini_checkpoint)


@pytest.mark.parametrize("side", ["right", "left"])
def test_parity_on_real_speech(mini_checkpoint, models, clips, side, parity):
    ours, theirs = models
    encoder = PromptEncoder(mini_checkpoint, ["anger", "happiness"])
    words = ["", "It's eleven o'clock", "Maybe tomorrow it will be cold"]
    prompts = [encoder.encode(text, "", len(clip)).tolist() for text, clip in zip(words, clips, strict=True)]
    batch = make_batch(clips, prompts, side)
    expected = reference(theirs, clips, batch)

    frames_b, mask_bt = frame_count(batch.audio_samples), np.asarray(batch.token_mask)
    mel_bfm = jax.jit(log_mel, static_argnums=1)(batch.audio, ours.mel_bins)
    theirs_bfm = expected.mel_bfm[:, : mel_bfm.shape[1]]
    mel_error = float(np.abs(mel_bfm - theirs_bfm)[valid(frames_b, mel_bfm.shape[1])].max())
    audio_btd = hear(ours.audio_tower, theirs_bfm, frames_b).states_btd
    heard = valid(token_count(frames_b), audio_btd.shape[1])
    projected_bth = ours.multi_modal_projector(jnp.asarray(expected.audio_btd))
    hidden_bth = hidden_states(ours, batch)
    logits_btv = ours.logits(jnp.asarray(expected.hidden_bth))

    at = f"mini checkpoint, {side} padding"
    parity(f"{at}: log-mel", mel_error, kind="absolute")
    parity(f"{at}: audio tower", relative_error(audio_btd, expected.audio_btd[:, : audio_btd.shape[1]], heard))
    parity(f"{at}: projector", relative_error(projected_bth, expected.projected_bth))
    if side == "right":
        read_bth = read(ours.language_model, expected.embeddings_bth)
        parity("mini checkpoint: language model", relative_error(read_bth, expected.hidden_bth, mask_bt))
    parity(f"{at}: output layer", relative_error(logits_btv, expected.logits_btv, mask_bt))
    parity(f"{at}: waveform to hidden states", relative_error(hidden_bth, expected.hidden_bth, mask_bt))
    choices = np.asarray(ours.logits(hidden_bth)).argmax(-1)[mask_bt]
    np.testing.assert_array_equal(choices, expected.logits_btv.argmax(-1)[mask_bt])
