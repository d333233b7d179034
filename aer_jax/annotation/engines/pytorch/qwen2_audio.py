"""Qwen2-Audio in PyTorch, encoding a clip once for all its listeners in a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2AudioConfig

from aer_jax.annotation.engines.pytorch.model import RATE, ChatModel
from aer_jax.base.chat import Messages
from aer_jax.base.hub import find_checkpoint
from aer_jax.base.processor_check import load_processor
from aer_jax.data.dataset import Dataset


class Qwen2Audio(ChatModel):
    """`ChatModel` for qwen2_audio checkpoints, without repeated encoding."""

    def __init__(self, checkpoint: str | Path, example: Messages, labels: Sequence[str] | None = None):
        load_processor(find_checkpoint(checkpoint), Qwen2AudioConfig.from_pretrained(checkpoint, local_files_only=True))
        super().__init__(checkpoint, example, labels)

    @contextmanager
    def hearing(self, rows: Sequence[Mapping[str, Any]], dataset: Dataset) -> Iterator[Mapping[str, torch.Tensor]]:
        """See `ChatModel`."""
        inputs, first_row, clip_of_row = self.inputs(rows, dataset)
        with self.heard_once(first_row, clip_of_row):
            yield inputs

    def inputs(
        self, rows: Sequence[Mapping[str, Any]], dataset: Dataset
    ) -> tuple[dict[str, torch.Tensor], list[int], torch.Tensor]:
        """The processor's inputs for the rows, left padded, with one log-mel per clip.

        Returns:
            the model's inputs, the first row of each distinct clip, and the clip of each row.
        """
        ids = [row["utterance"] for row in rows]
        clips = list(dict.fromkeys(ids))
        features = self.processor.feature_extractor(
            [dataset.audio(clip) for clip in clips],
            sampling_rate=RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        lengths = self.model.model.audio_tower._get_feat_extract_output_lengths(features["attention_mask"].sum(-1))
        audio_tokens = dict(zip(clips, lengths[1].tolist(), strict=True))
        marker = self.processor.audio_token
        texts = [
            self.processor.apply_chat_template(row["messages"], add_generation_prompt=True, tokenize=False).replace(
                marker, marker * audio_tokens[row["utterance"]]
            )
            for row in rows
        ]
        written = self.processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        clip_of_row = torch.tensor([clips.index(id) for id in ids])
        inputs = {
            "input_ids": written["input_ids"],
            "attention_mask": written["attention_mask"],
            "input_features": features["input_features"][clip_of_row].to(self.model.dtype),
            "feature_attention_mask": features["attention_mask"][clip_of_row],
        }
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        return inputs, [ids.index(clip) for clip in clips], clip_of_row.to(self.device)

    @contextmanager
    def heard_once(self, first_row: list[int], clip_of_row: torch.Tensor) -> Iterator[None]:
        """Context in which the audio tower runs once per clip instead of once per listener."""

        def fewer(module, args, kwargs):
            mask = kwargs.get("attention_mask")
            if mask is not None:
                kwargs = {**kwargs, "attention_mask": mask[first_row]}
            return (args[0][first_row], *args[1:]), kwargs

        def all_again(module, args, output):
            output.last_hidden_state = output.last_hidden_state[clip_of_row]
            return output

        tower = self.model.model.audio_tower
        hooks = [
            tower.register_forward_pre_hook(fewer, with_kwargs=True),
            tower.register_forward_hook(all_again),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
