"""Conversations as tokens, by the checkpoint's own chat template and tokenizer; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.base.chat_template import Messages, rendered
from aer_jax.base.config import read_config
from aer_jax.base.hub import find_checkpoint
from aer_jax.base.lengths import frame_count, token_count
from aer_jax.base.processor_check import audio_tokens, load_processor
from aer_jax.errors import UserError

# Tokens that a prompt may have, audio included, where the checkpoint has positions for more: attention takes the square
# of them, and 30 s of speech, quoted, are below 1,500.
LONGEST_PROMPT = 4096


def shared_prefix(prefix: np.ndarray, prompts: Iterable[Sequence[int] | np.ndarray]) -> np.ndarray:
    """As much of `prefix` as all `prompts` begin with: int32 [P]."""
    for tokens in prompts:
        same_p = np.equal(prefix[: len(tokens)], tokens[: len(prefix)])
        prefix = prefix[: len(same_p) if same_p.all() else int(np.argmin(same_p))]
    return prefix


class Chat:
    """Renders and tokenizes conversations about one recording.

    Args:
        checkpoint: directory with the tokenizer and processor files, or a hub id.

    Attributes:
        processor: transformers' Qwen2AudioProcessor.
        audio_id, pad_id: tokens.
        longest: tokens that a prompt may have, audio included.
        prefix: int32 [P], tokens that all conversations begin with, see `shared_prefix`; empty for none.

    Raises:
        UserError: the directory holds no processor, or one that does not fit its config.json.
    """

    prefix = np.zeros(0, np.int32)

    def __init__(self, checkpoint: str | Path):
        self.checkpoint = find_checkpoint(checkpoint)
        config = read_config(self.checkpoint)
        self.processor = load_processor(self.checkpoint, config)
        tokenizer = self.processor.tokenizer
        self.audio_id = config.audio_token_id
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.longest = min(config.text_config.max_position_embeddings, LONGEST_PROMPT)

    def render(self, messages: Messages) -> str:
        """The conversation as text, one <|AUDIO|> in it, up to where the model is to answer."""
        return rendered(self.processor, messages, self.checkpoint)

    def refuse_long(self, clip: str, tokens: int) -> None:
        """Refuse a clip whose prompt is too long.

        Raises:
            UserError: it has more than `longest` tokens.
        """
        if tokens > self.longest:
            raise UserError(
                f"the prompt of {clip} has {tokens:,} tokens, and at most {self.longest:,} are read with "
                f"{self.checkpoint}; shorten its transcript, or leave transcripts out."
            )

    def around_audio(self, messages: Messages) -> tuple[list[int], list[int]]:
        """Its tokens before and after the recording."""
        ids = audio_tokens(self.processor, self.render(messages), self.checkpoint)
        at = ids.index(self.audio_id)
        return ids[:at], ids[at + 1 :]

    def with_audio(self, before: list[int], after: list[int], samples: int) -> np.ndarray:
        """int32 [tokens], with as many audio tokens as a clip of `samples` at 16 kHz has states."""
        return np.array([*before, *[self.audio_id] * token_count(frame_count(samples)), *after], np.int32)


def label_tokens(checkpoint: str | Path, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Tokens of each label as an assistant's whole turn, whatever the conversation about a recording.

    Raises:
        UserError: as `reply`, or the directory holds no processor.
    """
    path = find_checkpoint(checkpoint)
    processor = load_processor(path, read_config(path))
    question: Messages = [{"role": "user", "content": [{"type": "audio", "audio_url": "recording"}]}]
    return tuple(tuple(reply(processor, question, label)) for label in labels)


def reply(processor: Any, messages: Messages, text: str) -> list[int]:
    """The tokens with which an assistant that says `text` answers, the one that ends its turn included.

    Args:
        processor: any of transformers' that has a chat template and a tokenizer.
        messages: what it answers.
        text: what it says.

    Raises:
        UserError: they are not the text's own tokens, since some of it merges with what stands around it or is
            itself a token that controls the conversation.
    """
    tokenizer = processor.tokenizer

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]  # the template writes those that it wants

    where = getattr(processor.tokenizer, "name_or_path", "the checkpoint")
    question = tokens(rendered(processor, messages, where))
    conversation = tokens(rendered(processor, messages, where, answer=text))
    answer_ids = tokens(text)
    end = len(question) + len(answer_ids)
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    apart = answer_ids and conversation[:end] == question + answer_ids and not special & set(answer_ids)
    if not apart or not special & set(conversation[end : end + 1]):
        raise UserError(
            f"{text!r} cannot be an answer: the tokenizer does not keep it apart from what stands around it; spell "
            "it otherwise."
        )
    return conversation[len(question) : end + 1]
