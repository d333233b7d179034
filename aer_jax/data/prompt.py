"""The fine-tuning prompt as tokens: what is common to all clips first, transcript and audio last."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aer_jax.base.chat import Chat, Messages, shared_prefix
from aer_jax.base.lengths import SAMPLE_RATE

if TYPE_CHECKING:
    from aer_jax.config import Config
    from aer_jax.data.dataset import Dataset

SYSTEM = "You hear how listeners would judge the emotion in a voice."
TASK = (
    "Several people heard the recording below and each chose one of these emotions: {labels}. Weigh tone, pitch, "
    "loudness and pace together with the words, and allow for disagreement. {answer}"
)
ANSWERS = {
    "shares": "Give the share of listeners that chose each emotion, as JSON.",
    "label": "Answer with the emotion that one of them chose.",
}


# Beginnings that merge with what stands before them, if any do; what they share, other clips share.
_PROBES = ("a", "Yes.", "7", "'s", "é")


class PromptEncoder(Chat):
    """The fine-tuning prompt of a clip.

    Args:
        checkpoint: directory with the tokenizer and processor files.
        classes: the labels that the prompt names.
        transcript: whether it quotes the words, where they are known.
        speaker: whether it names the speaker.
        answer: what it asks for, one of ANSWERS.

    Attributes:
        prefix: int32 [P], the tokens that come before anything of a clip's own. Setting it to fewer shares fewer.

    Raises:
        UserError: see `Chat`.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        classes: Sequence[str],
        *,
        transcript: bool = True,
        speaker: bool = False,
        answer: str = "shares",
    ):
        super().__init__(checkpoint)
        self.task = TASK.format(labels=", ".join(classes), answer=ANSWERS[answer])
        self.transcript, self.speaker = transcript, speaker
        self._around_audio = functools.lru_cache(maxsize=65536)(
            lambda transcript, speaker: self.around_audio(self._messages(transcript, speaker))
        )
        first, *others = (self._around_audio(*self._of_its_own(probe, probe))[0] for probe in _PROBES)
        self.prefix = shared_prefix(np.array(first, np.int32), others)

    @classmethod
    def of(cls, config: Config, classes: Sequence[str]) -> PromptEncoder:
        """The encoder of a run with these settings."""
        data, answer = config.data, "label" if config.model.head == "answers" else "shares"
        return cls(config.model.checkpoint, classes, transcript=data.transcript, speaker=data.speaker, answer=answer)

    def text(self, transcript: str, speaker: str) -> str:
        """The rendered prompt, one <|AUDIO|> in it."""
        return self.render(self._messages(transcript, speaker))

    def _messages(self, transcript: str, speaker: str) -> Messages:
        parts = [self.task]
        if self.speaker and speaker:
            parts.append(f"Speaker: {_plain(speaker)}.")
        if self.transcript and transcript:
            parts.append(f'Words: "{_plain(transcript)}"')
        content = [
            {"type": "text", "text": "\n".join(parts) + "\n"},
            {"type": "audio", "audio_url": "recording"},
        ]
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]

    def encode(self, transcript: str, speaker: str, samples: int) -> np.ndarray:
        """The prompt of one clip.

        Args:
            transcript: its words, "" where unknown.
            speaker: who speaks; used only where the encoder was told to name speakers.
            samples: its length at 16 kHz.

        Returns:
            int32 [tokens].
        """
        return self.with_audio(*self._around_audio(*self._of_its_own(transcript, speaker)), samples)

    def refuse_long_prompts(self, dataset: Dataset, ids: Sequence[str], max_seconds: float) -> None:
        """Refuse clips whose prompts are too long, before hours are spent on the others.

        Raises:
            UserError: names the first of them, see `Chat.refuse_long`.
        """
        for id in ids:
            clip = dataset.utterances[id]
            samples = max(1, round(min(clip.seconds, max_seconds) * SAMPLE_RATE))
            self.refuse_long(id, len(self.encode(clip.transcript, clip.speaker, samples)))

    def _of_its_own(self, transcript: str, speaker: str) -> tuple[str, str]:
        return transcript if self.transcript else "", speaker if self.speaker else ""


def _plain(text: str) -> str:
    """`text` on one line and without the marks that a tokenizer would read as special tokens."""
    return " ".join(text.replace("<|", "< |").split())
