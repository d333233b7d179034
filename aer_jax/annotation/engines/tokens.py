"""The annotation prompt and its labels as tokens, without PyTorch."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from aer_jax.annotation.task import AnnotationTask
from aer_jax.base.chat import Chat, reply


class AnnotationEncoder(Chat):
    """Prompts and possible answers as tokens.

    Args:
        checkpoint: directory with the tokenizer and processor files.
        task: prompt and dataset.

    Attributes:
        labels: tokens of each label as an assistant's whole turn: the token that ends the turn is the last of them,
            since it alone tells a label from a longer one that begins with it.
        labels_ln: int32 [labels, longest label], the same as one array.
        label_mask_ln: bool, True at these tokens; the rest is padding.

    Raises:
        UserError: see `Chat`; or the tokenizer does not keep a label apart from the prompt.
    """

    def __init__(self, checkpoint: str | Path, task: AnnotationTask):
        super().__init__(checkpoint)
        prompt = task.prompt
        # The tokens around a label are the template's, whoever answers.
        example = prompt.messages("", prompt.personas[0])
        self.labels = [reply(self.processor, example, label) for label in prompt.labels]
        self.label_mask_ln = np.arange(max(map(len, self.labels))) < np.array([[len(label)] for label in self.labels])
        self.labels_ln = np.full(self.label_mask_ln.shape, self.pad_id, np.int32)
        self.labels_ln[self.label_mask_ln] = np.concatenate(self.labels)
        # The longest prompts are looked at once for their lengths and once to be asked.
        self._around = functools.lru_cache(maxsize=65536)(
            lambda utterance, persona: self.around_audio(task.messages(utterance, persona))
        )

    def encode(self, utterance: str, persona: str, samples: int) -> np.ndarray:
        """The prompt of one clip.

        Args:
            utterance: its id.
            persona: of the listener.
            samples: the clip's length at 16 kHz.

        Returns:
            int32 [tokens].
        """
        return self.with_audio(*self._around(utterance, persona), samples)
