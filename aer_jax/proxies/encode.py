"""The annotation prompt and its labels as tokens, without PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aer_jax.data.chat import Chat
from aer_jax.proxies.prompts import Prompt


class AnnotationEncoder(Chat):
    """What one kind of listener is asked, and what it may answer.

    Args:
        checkpoint: directory with the tokenizer and processor files.
        prompt: the annotation prompt.
        persona: one of its personas.

    Attributes:
        labels_ln: int32 [labels, longest label], the tokens of each label as an assistant's whole turn: the token that
            ends the turn is the last of them, since it alone tells a label from a longer one that begins with it.
        label_mask_ln: bool, True at these tokens; the rest is padding.

    Raises:
        UserError: see `Chat`; or the tokenizer does not keep a label apart from the prompt.
    """

    def __init__(self, checkpoint: str | Path, prompt: Prompt, persona: str):
        super().__init__(checkpoint)
        self.prompt, self.persona = prompt, persona
        asked = prompt.messages("", persona)  # what a label merges with is the template's, whatever was asked
        replies = [self.reply(asked, label) for label in prompt.labels]
        self.label_mask_ln = np.arange(max(map(len, replies))) < np.array([[len(reply)] for reply in replies])
        self.labels_ln = np.full(self.label_mask_ln.shape, self.pad_id, np.int32)
        self.labels_ln[self.label_mask_ln] = np.concatenate(replies)

    def encode(self, transcript: str, speaker: str, samples: int) -> np.ndarray:
        """The prompt of one clip; called as `PromptEncoder.encode` is.

        Args:
            transcript: the words, "" where unknown.
            speaker: not told to the listener.
            samples: the clip's length at 16 kHz.

        Returns:
            int32 [tokens].
        """
        return self.with_audio(*self.around_audio(self.prompt.messages(transcript, self.persona)), samples)
