"""The PyTorch process: questions come in as JSON lines, Qwen2-Audio listens, answers go out as JSON lines.

Started by `aer_jax.proxies.process`. The first line names model and dataset, each further one is a batch. It ends
when its input ends, so it never outlives the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.proxies.trie import make_trie

NEW_TOKENS = 8  # a label is short; what does not fit is no label
RATE = 16_000


class GumbelSampler(LogitsProcessor):
    """Turns greedy decoding into sampling, row by row: argmax(logits / T + Gumbel noise) ~ softmax(logits / T).

    Each row has its own temperature and its own noise, seeded by (seed, step), so what it says does not depend
    on the batch that it is in.

    Args:
        temperatures: one a row.
        seeds: one a row.
    """

    def __init__(self, temperatures: Sequence[float], seeds: Sequence[int]):
        self.temperatures, self.seeds, self.step = temperatures, seeds, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] to perturbed float32 scores of the same shape; at temperature 0 as they are."""
        noise = [
            np.random.default_rng((seed, self.step)).gumbel(size=scores.shape[-1]) * (temperature > 0)
            for seed, temperature in zip(self.seeds, self.temperatures, strict=True)
        ]
        self.step += 1
        temperatures = [temperature or 1.0 for temperature in self.temperatures]
        temperature_n1 = torch.tensor(temperatures, device=scores.device)[:, None]
        noise_nv = torch.from_numpy(np.stack(noise)).to(scores.device, torch.float32)
        return scores.float() / temperature_n1 + noise_nv


class Annotator:
    """A Qwen2-Audio checkpoint that answers questions about the clips of a dataset.

    Args:
        model: checkpoint directory in Hugging Face layout; nothing is downloaded.
        dataset: where the audio comes from.
        labels: tokens of the only answers there are, each with the one that ends the turn; None for free answers.
        dtype: of weights and activations; None is bfloat16 on a GPU and float32 elsewhere.
    """

    def __init__(
        self,
        model: str,
        dataset: Dataset,
        labels: Sequence[Sequence[int]] | None = None,
        dtype: torch.dtype | None = None,
    ):
        self.dataset = dataset
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = Qwen2AudioProcessor.from_pretrained(model, local_files_only=True)
        self.model, loaded = Qwen2AudioForConditionalGeneration.from_pretrained(
            model,
            local_files_only=True,
            dtype=dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32),
            output_loading_info=True,
        )
        # transformers fills what is missing with random numbers and only warns.
        if loaded["missing_keys"]:
            raise ValueError(f"the checkpoint lacks the weights {', '.join(sorted(loaded['missing_keys'])[:3])}")
        self.model.to(self.device).eval()
        tokenizer = self.processor.tokenizer
        ends = self.model.generation_config.eos_token_id or tokenizer.eos_token_id
        padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self._trie = None if labels is None else make_trie(labels)
        if labels is not None:
            ends = sorted({label[-1] for label in labels})
        # Replaced, not merged: a published configuration brings its own penalties and cut-offs.
        self.model.generation_config = GenerationConfig(
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
        """What the model says to each row."""
        inputs, first_row, clip_of_row = self.inputs(rows)
        sampler = GumbelSampler([row["temperature"] for row in rows], [row["seed"] for row in rows])
        with self.heard_once(first_row, clip_of_row):
            tokens = self.model.generate(
                **inputs,
                logits_processor=LogitsProcessorList([sampler]),
                prefix_allowed_tokens_fn=self._allowed(inputs["input_ids"].shape[1]),
            )
        said = tokens[:, inputs["input_ids"].shape[1] :]
        return self.processor.tokenizer.batch_decode(said, skip_special_tokens=True)

    def _allowed(self, asked: int) -> Callable[[int, torch.Tensor], list[int]] | None:
        """What each row may go on with, `asked` being the length of its prompt."""
        if self._trie is None:
            return None
        padding = [self.model.generation_config.pad_token_id]  # behind an answer's end anything may stand
        return lambda row, tokens: self._trie.get(tuple(tokens[asked:].tolist()), padding)

    def inputs(self, rows: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], list[int], torch.Tensor]:
        """What the processor would make of the rows, left padded, each clip's log-mel computed once.

        Returns:
            the model's inputs, the first row of each distinct clip, and the clip of each row.
        """
        ids = [row["utterance"] for row in rows]
        clips = list(dict.fromkeys(ids))
        heard = self.processor.feature_extractor(
            [self.dataset.audio(clip) for clip in clips],
            sampling_rate=RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        lengths = self.model.model.audio_tower._get_feat_extract_output_lengths(heard["attention_mask"].sum(-1))
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
            "input_features": heard["input_features"][clip_of_row].to(self.model.dtype),
            "feature_attention_mask": heard["attention_mask"][clip_of_row],
        }
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        return inputs, [ids.index(clip) for clip in clips], clip_of_row.to(self.device)

    @contextmanager
    def heard_once(self, first_row: list[int], clip_of_row: torch.Tensor) -> Iterator[None]:
        """While it lasts, the audio tower runs once a clip, not once a listener of the clip."""

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


def main() -> None:
    """Answer batches until the input ends."""
    # Whatever a library prints belongs to the log; only answers may go through the pipe.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(message: dict[str, Any]) -> None:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()

    setup = json.loads(sys.stdin.readline())
    annotator = Annotator(setup["model"], open_dataset(setup["dataset"]), setup["labels"])
    reply({"ready": str(annotator.device)})
    for line in sys.stdin:
        reply({"answers": annotator.answer(json.loads(line))})


if __name__ == "__main__":
    main()
