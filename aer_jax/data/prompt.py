"""The fine-tuning prompt as tokens: what is common to all clips first, transcript and audio last."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aer_jax.errors import UserError
from aer_jax.lengths import frame_count, token_count

SYSTEM = "You hear how listeners would judge the emotion in a voice."
TASK = (
    "Several people heard the recording below and each chose one of these emotions: {labels}. Weigh tone, pitch, "
    "loudness and pace together with the words, and allow for disagreement. Give the share of listeners that chose "
    "each emotion, as JSON."
)


class PromptEncoder:
    """Renders the prompt by the checkpoint's own chat template and counts the audio tokens in.

    Args:
        checkpoint: directory with the tokenizer and processor files.
        classes: the labels that the prompt names.
        transcript: whether it quotes the words, where they are known.
        speaker: whether it names the speaker.

    Raises:
        UserError: the directory holds no processor, or one without audio tokens.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        classes: Sequence[str],
        *,
        transcript: bool = True,
        speaker: bool = False,
    ):
        from transformers import Qwen2AudioProcessor

        try:
            self.processor = Qwen2AudioProcessor.from_pretrained(checkpoint, local_files_only=True)
        except (OSError, ValueError):
            raise UserError(
                f"{checkpoint} holds no tokenizer and processor files of Qwen2-Audio that can be read; copy the whole "
                "checkpoint."
            ) from None
        tokenizer = self.processor.tokenizer
        self.audio_id = tokenizer.convert_tokens_to_ids(self.processor.audio_token)
        if self.audio_id in (None, tokenizer.unk_token_id):
            raise UserError(
                f"the tokenizer in {checkpoint} has no {self.processor.audio_token} token; it is not Qwen2-Audio's."
            )
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.task = TASK.format(labels=", ".join(classes))
        self.transcript, self.speaker = transcript, speaker
        self._around_audio = functools.lru_cache(maxsize=65536)(self._tokenize)

    def text(self, transcript: str, speaker: str) -> str:
        """The rendered prompt, one <|AUDIO|> in it."""
        parts = [self.task]
        if self.speaker and speaker:
            parts.append(f"Speaker: {_plain(speaker)}.")
        if self.transcript and transcript:
            parts.append(f'Words: "{_plain(transcript)}"')
        content = [
            {"type": "text", "text": "\n".join(parts) + "\n"},
            {"type": "audio", "audio_url": "recording"},
        ]
        conversation = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
        return self.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)

    def _tokenize(self, transcript: str, speaker: str) -> tuple[list[int], list[int]]:
        ids = self.processor.tokenizer(self.text(transcript, speaker))["input_ids"]
        at = ids.index(self.audio_id)
        return ids[:at], ids[at + 1 :]

    def encode(self, transcript: str, speaker: str, samples: int) -> np.ndarray:
        """The prompt of one clip.

        Args:
            transcript: its words, "" where unknown.
            speaker: who speaks; used only where the encoder was told to name speakers.
            samples: its length at 16 kHz.

        Returns:
            int32 [tokens].
        """
        before, after = self._around_audio(transcript if self.transcript else "", speaker if self.speaker else "")
        audio = [self.audio_id] * token_count(frame_count(samples))
        return np.array([*before, *audio, *after], np.int32)


def _plain(text: str) -> str:
    """`text` on one line and without the marks that a tokenizer would read as special tokens."""
    return " ".join(text.replace("<|", "< |").split())
