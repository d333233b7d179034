"""PyTorch worker process: questions in, answers out, as JSON lines.

The first line names model, dataset and an example conversation, each further one is a batch; see `worker_process`.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from aer_jax.annotation.engines.gumbel import GumbelSampler
from aer_jax.annotation.engines.pytorch.model import ChatModel
from aer_jax.annotation.engines.pytorch.qwen2_audio import Qwen2Audio
from aer_jax.base.chat import Messages
from aer_jax.base.label_trie import make_trie
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.errors import UserError
from aer_jax.worker_process import serve

NEW_TOKENS = 8  # a label is short; what does not fit is no label


def open_model(checkpoint: str | Path, example: Messages, labels: Sequence[str] | None = None) -> ChatModel:
    """Open the checkpoint by the model type in its config.json; see `ChatModel`."""
    file = Path(checkpoint) / "config.json"
    try:
        kind = json.loads(file.read_text())["model_type"]
    except (ValueError, KeyError):
        raise UserError(f"{file} is not valid JSON or names no model_type; copy the whole checkpoint.") from None
    return (Qwen2Audio if kind == "qwen2_audio" else ChatModel)(checkpoint, example, labels)


class Annotator:
    """Answers questions about the clips of a dataset.

    Args:
        chat: the model, bound to labels or not.
        dataset: where the audio comes from.
    """

    def __init__(self, chat: ChatModel, dataset: Dataset):
        self.chat, self.dataset = chat, dataset
        tokenizer, model, labels = chat.processor.tokenizer, chat.model, chat.labels
        ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._trie = None if labels is None else make_trie(labels)
        if labels is not None:
            ends = sorted({label[-1] for label in labels})
        # Replaced, not merged: a published configuration brings its own penalties and cut-offs.
        model.generation_config = GenerationConfig(
            max_new_tokens=NEW_TOKENS if labels is None else max(map(len, labels)),
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=padding,
        )

    def answer(self, rows: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Responses in order: {"response": text}, or {"error": text} where a row fails also on its own.

        Args:
            rows: {"utterance", "messages", "temperature", "seed"} each.
        """
        try:
            return [{"response": text} for text in self.generate(rows)]
        except Exception as error:
            traceback.print_exc()
            if len(rows) > 1:
                return [answer for row in rows for answer in self.answer([row])]
            return [{"error": f"{type(error).__name__}: {error}"}]

    @torch.inference_mode()
    def generate(self, rows: list[dict[str, Any]]) -> list[str]:
        """The model's response to each row."""
        sampler = GumbelSampler([row["temperature"] for row in rows], [row["seed"] for row in rows])
        with self.chat.hearing(rows, self.dataset) as inputs:
            length = inputs["input_ids"].shape[1]
            tokens = self.chat.model.generate(  # type: ignore[operator]  # its mixin hides behind torch's attributes
                **inputs,
                logits_processor=LogitsProcessorList([sampler]),
                prefix_allowed_tokens_fn=self._allowed(length),
            )
        return self.chat.processor.tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)

    def _allowed(self, length: int) -> Callable[[int, torch.Tensor], list[int]] | None:
        """Allowed next tokens of each row; `length` is that of its prompt."""
        trie = self._trie
        if trie is None:
            return None
        padding = [self.chat.model.generation_config.pad_token_id]  # behind an answer's end anything may stand
        return lambda row, tokens: trie.get(tuple(tokens[length:].tolist()), padding)


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Callable[[Any], dict[str, Any]]]:
    """Load the model that the job names; then each message is a batch of rows."""
    chat = open_model(job["model"], job["example"], job["labels"])
    annotator = Annotator(chat, open_dataset(job["dataset"]))
    return {"ready": str(chat.device)}, lambda rows: {"answers": annotator.answer(rows)}


if __name__ == "__main__":
    serve(start)
