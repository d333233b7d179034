"""A random tiny Qwen2-Audio made by transformers, what it computes, and the same weights in our model."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

from aer_jax.base.config import read_config
from aer_jax.base.lengths import MAX_SAMPLES, SAMPLE_RATE, frame_count, token_count
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.data.batching.shapes import window_for
from aer_jax.models.emotion_model import ModelInputs
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.weights import load_base

VOCABULARY, AUDIO_TOKEN = 99, 98
SECONDS = (0.1, 1.37, 4.0, 2.555, 11.3)


def tiny_config(mels: int) -> Qwen2AudioConfig:
    """Grouped queries, and widths that all differ, so that no transpose goes unseen."""
    return Qwen2AudioConfig(
        audio_config={
            "num_mel_bins": mels, "d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 4,
            "encoder_ffn_dim": 56,
        },
        text_config={
            "vocab_size": VOCABULARY, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
            "num_key_value_heads": 2, "intermediate_size": 80, "tie_word_embeddings": False,
            "rope_parameters": {"rope_theta": 50000.0, "rope_type": "default"},
        },
        audio_token_index=AUDIO_TOKEN,
    )  # fmt: skip


def save_tiny(path: Path, mels: int, **kwargs) -> Path:
    """Write a checkpoint none of whose biases is 0 and none of whose norm weights is 1."""
    torch.manual_seed(mels)
    model = Qwen2AudioForConditionalGeneration(tiny_config(mels)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm.weight" in name or "layernorm.weight" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.3)
            else:
                parameter.normal_(std=2 * parameter[0].numel() ** -0.5)
    model.save_pretrained(path, **kwargs)
    return path


def load_torch(path: Path) -> Qwen2AudioForConditionalGeneration:
    """transformers' model in float32."""
    return Qwen2AudioForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()


def load_ours(path: Path) -> Qwen2Audio:
    """Our base model in float32, output layer included."""
    config = read_config(path)
    model = nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0)))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    load_base(model, Checkpoint(path), lambda path, shape: here, jnp.float32)
    return model


def voice(seconds: float, seed: int) -> np.ndarray:
    """Harmonics of a gliding pitch under a syllable-like envelope, with pauses and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(rng.uniform(90, 250) * (1 + 0.2 * np.sin(3 * t))) / SAMPLE_RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    envelope = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * t + 1), 0, None)
    return (0.1 * envelope * tone + 1e-3 * rng.standard_normal(len(t))).astype(np.float32)


def prompt(samples: int, words: int, audio_token: int, seed: int) -> list[int]:
    """Random words, then the clip's audio tokens, then two more words."""
    words = np.random.default_rng(seed).integers(5, 90, size=words + 2).tolist()
    return [*words[:-2], *[audio_token] * token_count(frame_count(samples)), *words[-2:]]


def make_batch(clips: list[np.ndarray], prompts: list[list[int]], side: str, window: int | None = None) -> ModelInputs:
    """Pad clips to a window, by default the longest one's, and prompts on one side."""
    window = window or int(window_for(np.array([len(clip) for clip in clips])).max())
    length = max(map(len, prompts)) + 3
    audio_bs = np.zeros((len(clips), window), np.float32)
    tokens_bt = np.zeros((len(clips), length), np.int32)
    mask_bt = np.zeros((len(clips), length), bool)
    for b, (clip, tokens) in enumerate(zip(clips, prompts, strict=True)):
        audio_bs[b, : len(clip)] = clip
        at = slice(length - len(tokens), None) if side == "left" else slice(len(tokens))
        tokens_bt[b, at] = tokens
        mask_bt[b, at] = True
    samples_b = np.array([len(clip) for clip in clips], np.int32)
    return ModelInputs(*map(jnp.asarray, (audio_bs, samples_b, tokens_bt, mask_bt)))


def unequal_batch(side: str, seconds=SECONDS, audio_token=AUDIO_TOKEN) -> tuple[list[np.ndarray], ModelInputs]:
    """Clips and prompts of unequal lengths, as clips and as a batch."""
    clips = [voice(s, seed) for seed, s in enumerate(seconds)]
    prompts = [prompt(len(clip), 7 * ((5 * b) % 4 + 1), audio_token, b) for b, clip in enumerate(clips)]
    return clips, make_batch(clips, prompts, side)


def read_rows(language_model, embeddings_bth):
    """The language model without a prefix."""
    return language_model(jnp.zeros((1, 0, embeddings_bth.shape[2])), embeddings_bth)[1]


def states_of_tokens(model, batch, key=None):
    """The model's states where their tokens stand, on whichever side the batch is padded."""
    hidden_bth, time = model(*batch, key).hidden_bth, batch.tokens.shape[1]
    at_bt = (jnp.arange(time) - jnp.argmax(batch.token_mask, axis=1)[:, None]) % time
    return jnp.take_along_axis(hidden_bth, at_bt[..., None], axis=1)


# Compiled once a shape, whichever test asks first.
hear = nnx.jit(lambda tower, mel_bfm, frames_b: tower(mel_bfm, frames_b))
read = nnx.jit(read_rows)
hidden_states = nnx.jit(states_of_tokens)


@dataclass
class Reference:
    """What transformers computes for a batch whose audio is padded to 30 s.

    Attributes:
        mel_bfm: float32 [batch, 3000, bins].
        layers_lbtd: of every audio layer, before pooling.
        audio_btd: audio tower's states.
        projected_bth: the same after the projector.
        embeddings_bth: what the language model is given.
        hidden_bth: after the final norm.
        logits_btv: next-token logits.
    """

    mel_bfm: np.ndarray
    layers_lbtd: np.ndarray
    audio_btd: np.ndarray
    projected_bth: np.ndarray
    embeddings_bth: np.ndarray
    hidden_bth: np.ndarray
    logits_btv: np.ndarray


def reference(model: Qwen2AudioForConditionalGeneration, clips: list[np.ndarray], batch: ModelInputs) -> Reference:
    """Run transformers' feature extractor and model, and keep what each module gives."""
    extractor = WhisperFeatureExtractor(feature_size=model.config.audio_config.num_mel_bins)
    audio = extractor(clips, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt")
    inner, seen, layers = model.model, {}, []
    language_model = inner.language_model
    hooks = [
        inner.audio_tower.register_forward_hook(lambda m, i, o: seen.update(audio=o.last_hidden_state)),
        inner.multi_modal_projector.register_forward_hook(lambda m, i, o: seen.update(projected=o)),
        language_model.register_forward_pre_hook(
            lambda m, args, kwargs: seen.update(embeddings=kwargs["inputs_embeds"]), with_kwargs=True
        ),
        *(layer.register_forward_hook(lambda m, i, o: layers.append(o)) for layer in inner.audio_tower.layers),
    ]
    with torch.no_grad():
        hidden = inner(
            input_ids=torch.from_numpy(np.array(batch.tokens, np.int64)),
            attention_mask=torch.from_numpy(np.array(batch.token_mask, np.int64)),
            input_features=audio["input_features"],
            feature_attention_mask=audio["attention_mask"],
        ).last_hidden_state
        logits = model.lm_head(hidden)
    for hook in hooks:
        hook.remove()
    arrays = [torch.stack(layers), seen["audio"], seen["projected"], seen["embeddings"], hidden, logits]
    mel_bfm = audio["input_features"].numpy().transpose(0, 2, 1)
    return Reference(mel_bfm, *(array.numpy() for array in arrays))


def relative_error(ours, theirs, where=None) -> float:
    """max |ours - theirs| / max |theirs|, both over the valid positions `where`."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if where is not None:
        ours, theirs = ours[where], theirs[where]
    assert ours.shape == theirs.shape and ours.size
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def valid(lengths_b, time: int) -> np.ndarray:
    """bool [batch, time], True below each length."""
    return np.arange(time) < np.asarray(lengths_b)[:, None]


def pad_to_30_s(batch: ModelInputs) -> ModelInputs:
    """The same clips in the 30 s window."""
    return batch._replace(audio=jnp.pad(batch.audio, ((0, 0), (0, MAX_SAMPLES - batch.audio.shape[1]))))
