"""Label likelihoods: all labels of all prompts about a clip in one pass.

A prompt's labels are packed behind it. Each of their tokens attends to the prompt and to its own label's tokens before
it, and its position goes on from the end of the prompt, so every label is scored as if it stood there alone. The audio
tower hears a clip once, however many prompts are about it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aer_jax.base.lengths import frame_count
from aer_jax.models.attention import Mask, Pattern
from aer_jax.models.log_mel import log_mel
from aer_jax.models.qwen2_audio import Qwen2Audio


def label_log_probs(
    model: Qwen2Audio,
    audio_bs: jax.Array,
    samples_b: jax.Array,
    tokens_bpt: jax.Array,
    mask_bpt: jax.Array,
    labels_ln: jax.Array | np.ndarray,
    label_mask_ln: jax.Array | np.ndarray,
) -> jax.Array:
    """Log-probability of every token of every label, given prompt, audio and the label's tokens before it.

    Their sum over a label's tokens is its log-likelihood. A label should end with the token that ends the answer: only
    that tells it from a longer label that begins with it, and only with it do the likelihoods of all possible answers
    sum to 1. The probabilities are over the whole vocabulary, so they are logits up to one constant for all tokens that
    may follow the same prefix: an answer tempered token by token, or constrained to the labels, follows from them.

    Args:
        model: made with `output_layer`.
        audio_bs, samples_b: clips, see `Qwen2Audio.__call__`.
        tokens_bpt, mask_bpt: for each clip its prompts, [batch, prompts, time]; padding on either side.
        labels_ln: tokens of each label, [labels, longest label], padded on the right.
        label_mask_ln: True at the labels' tokens.

    Returns:
        float32 [batch, prompts, labels, longest label], 0 behind a label's end.
    """
    audio_bth, _ = model.encode_audio(log_mel(audio_bs, model.mel_bins), frame_count(samples_b))

    def score(prompt: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _score(model, audio_bth, *prompt, labels_ln)

    # One prompt of each clip at a time: no more memory than one prompt needs, rows divided over the mesh as ever.
    log_probs_pbln = jax.lax.map(score, (tokens_bpt.swapaxes(0, 1), mask_bpt.swapaxes(0, 1)))
    return jnp.where(label_mask_ln, log_probs_pbln.swapaxes(0, 1), 0.0)


def _score(model: Qwen2Audio, audio_bth, tokens_bt, mask_bt, labels_ln) -> jax.Array:
    batch, time = tokens_bt.shape
    labels, longest = labels_ln.shape
    # A label's last token predicts nothing.
    packed_p = labels_ln[:, :-1].reshape(-1)
    all_bt = jnp.concatenate([tokens_bt, jnp.broadcast_to(packed_p, (batch, packed_p.size))], axis=1)
    embeddings_bth = model.insert_audio(audio_bth, all_bt)
    hidden_bth = model.language_model.attend(embeddings_bth, *_packed(mask_bt, labels, longest - 1))

    last_b11 = (time - 1 - jnp.argmax(mask_bt[:, ::-1], axis=1))[:, None, None]
    # What predicts: the prompt's last token for all first tokens at once, and every packed token.
    predicts_bph = jnp.concatenate([jnp.take_along_axis(hidden_bth, last_b11, axis=1), hidden_bth[:, time:]], axis=1)
    logits_bpv = model.logits(predicts_bph)
    first_l1, later_ln = jnp.zeros((labels, 1), int), 1 + jnp.arange(packed_p.size).reshape(labels, longest - 1)
    by_ln = jnp.concatenate([first_l1, later_ln], axis=1)
    return logits_bpv[:, by_ln, labels_ln] - jax.nn.logsumexp(logits_bpv, axis=-1)[:, by_ln]


def _packed(mask_bt: jax.Array, labels: int, length: int) -> tuple[jax.Array, Mask]:
    label_s = np.concatenate([np.full(mask_bt.shape[1], -1), np.repeat(np.arange(labels), length)])
    valid_bs = jnp.pad(mask_bt, ((0, 0), (0, labels * length)), constant_values=True)
    positions_bs = jnp.maximum(jnp.cumsum(valid_bs, axis=1) - 1, 0) - length * np.maximum(label_s, 0)
    return positions_bs, Mask(valid_bs, Pattern(group_s=label_s))
