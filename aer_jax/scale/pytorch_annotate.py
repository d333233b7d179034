"""Synthetic votes by transformers, in a process of its own that `bench_annotate` starts.

Each further line asks about all clips once:

- `loop`: every label of every persona is read by a forward pass of its own, rows of a batch at a time, the whole model
  on each row;
- `careful`: the same rows, but the audio tower hears a clip once a batch and the output layer reads labels alone;
- `sampled`: a free answer of each listener, by the engine that `aer-jax annotate` has for it.

All make log-mel of 30 s once a clip and batch.
"""

from __future__ import annotations

from typing import Any

import torch

from aer_jax.data.dataset import open_dataset
from aer_jax.proxies.listeners import crossed
from aer_jax.proxies.parsing import parse, synonyms_of
from aer_jax.proxies.prompts import load_prompt
from aer_jax.proxies.questions import Questions
from aer_jax.proxies.worker import Annotator
from aer_jax.scale.side import Clock, peak_bytes, reset_peak, serve


class Votes:
    """The job's clips, and each way to get votes about them."""

    def __init__(self, job: dict[str, Any]):
        self.ids, self.batch = job["ids"], job["batch"]
        self.dataset = open_dataset(job["dataset"])
        self.questions = Questions(self.dataset, load_prompt(self.dataset.classes))
        self.people = crossed(job["listeners"], self.questions.prompt.personas)
        self.annotator = Annotator(job["checkpoint"], self.dataset, dtype=getattr(torch, job["dtype"]))
        self.labels_ln, self.label_mask_ln = torch.tensor(job["labels"]), torch.tensor(job["label_mask"])

    def likelihoods(self, ids: list[str], how: str) -> list[list[list[float]]]:
        """Log-likelihoods [clips, personas, labels]."""
        personas, labels = self.questions.prompt.personas, range(len(self.labels_ln))
        asked = [(id, persona, label) for id in ids for persona in personas for label in labels]
        found: list[float] = []
        for first in range(0, len(asked), self.batch):
            some = asked[first : first + self.batch]
            rows = [{"utterance": id, "messages": self.questions.messages(id, persona)} for id, persona, _ in some]
            found += self._score(rows, torch.tensor([label for *_, label in some]), how).tolist()
        return torch.tensor(found, dtype=torch.float64).view(len(ids), len(personas), len(labels)).tolist()

    @torch.inference_mode()
    def _score(self, rows: list[dict[str, Any]], label_r: torch.Tensor, how: str) -> torch.Tensor:
        model, device = self.annotator.model, self.annotator.device
        inputs, first_row, clip_of_row = self.annotator.inputs(rows)
        said_rn, mask_rn = self.labels_ln[label_r].to(device), self.label_mask_ln[label_r].to(device)
        before = inputs["input_ids"].shape[1] - 1  # the prompt's last token, which predicts the label's first
        inputs["input_ids"] = torch.cat([inputs["input_ids"], said_rn], dim=1)
        inputs["attention_mask"] = torch.cat([inputs["attention_mask"], mask_rn.long()], dim=1)
        if how == "loop":
            logits_rnv = model(**inputs).logits[:, before:-1]
        else:
            with self.annotator.heard_once(first_row, clip_of_row):
                states_rth = model.model(**inputs, use_cache=False).last_hidden_state
            logits_rnv = model.lm_head(states_rth[:, before:-1])
        log_probs_rn = logits_rnv.float().log_softmax(-1).gather(-1, said_rn[..., None])[..., 0]
        return (log_probs_rn * mask_rn).sum(-1)

    def sample(self, ids: list[str]) -> float:
        """The share of the listeners' answers that are labels."""
        asked = [(id, person) for id in ids for person in self.people]
        said: list[str] = []
        for first in range(0, len(asked), self.batch):
            rows = [
                {
                    "utterance": id,
                    "messages": self.questions.messages(id, person.persona),
                    "temperature": person.temperature,
                    "seed": person.seed(id),
                }
                for id, person in asked[first : first + self.batch]
            ]
            said += self.annotator.generate(rows)
        labels = self.questions.prompt.labels
        synonyms = synonyms_of(self.dataset.name, labels)
        return sum(parse(answer, labels, synonyms) is not None for answer in said) / len(said)


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    votes = Votes(job)

    def ask(ids: list[str], how: str) -> dict[str, Any]:
        clock = Clock()
        result = {"parsed": votes.sample(ids)} if how == "sampled" else {"log_likelihoods": votes.likelihoods(ids, how)}
        return {**clock.taken(), **result, "peak_bytes": peak_bytes()}

    for how in ("careful", "sampled"):  # not timed: one clip; the loop runs what these two run
        ask(votes.ids[:1], how)
    reset_peak()
    return {"versions": {"torch": torch.__version__}}, lambda how: ask(votes.ids, how)


if __name__ == "__main__":
    serve(start)
