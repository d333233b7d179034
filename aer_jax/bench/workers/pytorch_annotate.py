"""Synthetic votes by transformers, for `bench_annotate`; each message is a way to ask about all clips once.

- `loop`: every label of every persona is read by a forward pass of its own, rows of a batch at a time, the whole model
  on each row;
- `careful`: the same rows, but the audio tower encodes a clip once per batch and the output layer reads labels alone;
- `sampled`: a free answer of each listener, by the engine that `aer-jax annotate` has for it.

All make log-mel of 30 s once per clip and batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from aer_jax.annotation.engines.pytorch.qwen2_audio import Qwen2Audio
from aer_jax.annotation.engines.pytorch.worker import Annotator
from aer_jax.annotation.listeners import Listener, crossed
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.bench.measure import Clock, memory_bytes, reset_peak
from aer_jax.config import load_config
from aer_jax.data.dataset import open_dataset
from aer_jax.labels.parsing import parse, synonyms_of
from aer_jax.worker_process import serve


class PytorchVotes:
    """The job's clips, and each way to get votes about them.

    Attributes:
        questions_of: way -> what it is asked: likelihoods of (utterance, persona, label), or samples of (utterance,
            listener).
    """

    def __init__(self, job: dict[str, Any]):
        config = load_config(job["config"])
        self.batch, self.dataset = config.train.microbatch, open_dataset(config.data.dataset)
        self.task = AnnotationTask(self.dataset, load_prompt(self.dataset.classes))
        sample = self.task.messages(job["ids"][0], self.task.prompt.personas[0])
        self.chat = Qwen2Audio(config.model.checkpoint, sample)
        self.chat.model.to(getattr(torch, config.model.dtype))
        self.annotator = Annotator(self.chat, self.dataset)
        self.labels_ln, self.label_mask_ln = torch.tensor(job["labels"]), torch.tensor(job["label_mask"])
        ids, personas = job["ids"], self.task.prompt.personas
        labels, people = range(len(self.labels_ln)), crossed(job["listeners"], personas)
        scored = list(itertools.product(ids, personas, labels))
        sampled = list(itertools.product(ids, people))
        self.questions_of: dict[str, list[Any]] = {"loop": scored, "careful": scored, "sampled": sampled}

    def answers(self, way: str, limit: int | None = None) -> list[Any]:
        """Log-likelihoods or sampled answers of all questions, or of the first `count`."""
        questions = self.questions_of[way][:limit]
        answers: list[Any] = []
        for first in range(0, len(questions), self.batch):
            some = questions[first : first + self.batch]
            answers += self._sample(some) if way == "sampled" else self._score(some, way)
        return answers

    @torch.inference_mode()
    def _score(self, asked: Sequence[tuple[str, str, int]], way: str) -> list[float]:
        rows = [{"utterance": id, "messages": self.task.messages(id, persona)} for id, persona, _ in asked]
        label_r = torch.tensor([label for *_, label in asked])
        model, device = self.chat.model, self.chat.device
        inputs, first_row, clip_of_row = self.chat.inputs(rows, self.dataset)
        said_rn, mask_rn = self.labels_ln[label_r].to(device), self.label_mask_ln[label_r].to(device)
        before = inputs["input_ids"].shape[1] - 1  # the prompt's last token, which predicts the label's first
        inputs["input_ids"] = torch.cat([inputs["input_ids"], said_rn], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask_rn.long()], dim=1)
        if way == "loop":
            logits_rnv = model(**inputs).logits[:, before:-1]
        else:
            with self.chat.heard_once(first_row, clip_of_row):
                states_rth = model.model(**inputs, use_cache=False).last_hidden_state
            logits_rnv = model.lm_head(states_rth[:, before:-1])
        log_probs_rn = logits_rnv.float().log_softmax(-1).gather(-1, said_rn[..., None])[..., 0]
        return (log_probs_rn * mask_rn).sum(-1).tolist()

    def _sample(self, asked: Sequence[tuple[str, Listener]]) -> list[str]:
        return self.annotator.generate(
            [
                {
                    "utterance": id,
                    "messages": self.task.messages(id, person.persona),
                    "temperature": person.temperature,
                    "seed": person.seed(id),
                }
                for id, person in asked
            ]
        )

    def parsed(self, answers: list[str]) -> float:
        """The share of sampled answers that are labels."""
        labels = self.task.prompt.labels
        synonyms = synonyms_of(self.dataset.name, labels)
        return sum(parse(answer, labels, synonyms) is not None for answer in answers) / len(answers)


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    votes = PytorchVotes(job)
    for way in votes.questions_of:
        votes.answers(way, votes.batch)
    reset_peak()

    def answer(way: str) -> dict[str, Any]:
        clock = Clock()
        answers = votes.answers(way)
        taken = clock.lap()
        result = {"parsed": votes.parsed(answers)} if way == "sampled" else {"log_likelihoods": answers}
        return {**taken, **result, "peak_bytes": memory_bytes()}

    return {"versions": {"torch": torch.__version__}}, answer


if __name__ == "__main__":
    serve(start)
