"""Clips and prompts to one batch of a fixed shape.

A batch is a dict of numpy arrays, B rows, S samples, P and T tokens, K classes:

    audio          float32 [B, S]   16 kHz, zeros after the clip
    audio_samples  int32   [B]      length of the clip
    prefix         int32   [P]      what all prompts begin with; it is read once for all rows
    tokens         int32   [B, T]   the rest of the prompt, padded on the right
    token_mask     bool    [B, T]
    target         float32 [B, K]
    weight         float32 [B]      what it counts in the loss; 0 for a row that only fills the batch up
    row            int32   [B]      which example or utterance it is; -1 for a filler
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Batch = dict[str, np.ndarray]
NO_PREFIX = np.zeros(0, np.int32)


def collate(
    audio: Sequence[np.ndarray],
    tokens: Sequence[np.ndarray],
    targets_nk: np.ndarray,
    rows: Sequence[int] | np.ndarray,
    *,
    batch: int,
    window: int,
    text_length: int,
    pad_id: int,
    prefix: np.ndarray = NO_PREFIX,
    weights: Sequence[float] | None = None,
) -> Batch:
    """Clips and their prompts as one batch of fixed shape.

    Rows beyond the clips repeat the first one, with weight 0 and row -1: no mask is ever empty. A clip whose row is -1
    is such a filler too.

    Args:
        audio: waveforms, float32 [samples <= window].
        tokens: prompts, int [P < tokens <= P + text_length].
        targets_nk: distributions [n, K]; zeros where there is none.
        rows: what the batch's `row` says, [n].
        batch: rows of the batch, at least n.
        window: samples of the audio window.
        text_length: tokens of a row.
        pad_id: the tokenizer's padding token.
        prefix: int [P], what each of `tokens` begins with.
        weights: what each clip counts, [n]; 1 by default.

    Raises:
        ValueError: there are too many clips, or a prompt begins with something else.
    """
    n = len(audio)
    if not 1 <= n <= batch:
        raise ValueError(f"{n} clips do not make a batch of {batch}")
    if any(not np.array_equal(prompt[: len(prefix)], prefix) for prompt in tokens):
        raise ValueError(f"a prompt does not begin with the {len(prefix)} tokens of the prefix")
    rests = [prompt[len(prefix) :] for prompt in tokens]
    source = [*range(n), *[0] * (batch - n)]
    audio_bs = np.zeros((batch, window), np.float32)
    tokens_bt = np.full((batch, text_length), pad_id, np.int32)
    mask_bt = np.zeros((batch, text_length), bool)
    for b, i in enumerate(source):
        audio_bs[b, : len(audio[i])] = audio[i]
        tokens_bt[b, : len(rests[i])] = rests[i]
        mask_bt[b, : len(rests[i])] = True
    row_b = np.array([*rows, *[-1] * (batch - n)], np.int32)
    weight_b = np.ones(batch, np.float32) if weights is None else np.asarray(weights, np.float32)[source]
    return {
        "audio": audio_bs,
        "audio_samples": np.array([len(audio[i]) for i in source], np.int32),
        "prefix": prefix,
        "tokens": tokens_bt,
        "token_mask": mask_bt,
        "target": np.asarray(targets_nk, np.float32)[source],
        "weight": np.where(row_b >= 0, weight_b, np.float32(0)),
        "row": row_b,
    }
