"""A small dataset and evaluated runs on it, as the report finds them on disk."""

import dataclasses
import json

import numpy as np

from aer_jax.config import Config, DataConfig, DimeAugConfig, LabelsConfig, ModelConfig, to_yaml
from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.evaluation.evaluate import evaluate, write_evaluation
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.labels.votes import Vote

CLASSES = ("anger", "happiness", "neutral", "sadness")
TRANSCRIPT = '<script>alert("it\'s")</script> & more'

ABOUT = {
    "learns_from": {"model.checkpoint": "0123" * 16, "data.dataset": "fedcba9876543210" * 4},
    "parameters": {"trainable": 1234, "frozen": 5678901},
    "provenance": {
        "date": "2026-11-30T12:00:00+00:00",
        "version": "0.9.9",
        "commit": "0123456789ab+",
        "command": "aer-jax train --config /home/me/combined.yaml data.dataset=/home/me/mine 'out=<b>run'",
    },
}


def small_dataset(out, speakers=9, clips=12, licensed=False, seed=0):
    rng = np.random.default_rng(seed)
    noise_t = rng.normal(0, 0.1, 1600).astype(np.float32)
    found = []
    for s in range(speakers):
        split = ("train", "test", "validation")[s % 3]
        for c in range(clips):
            id = f"speaker{s}-clip{c:02}"
            p = rng.dirichlet([0.4, 0.3, 0.9, 0.4])
            votes = tuple(Vote(id, CLASSES[k], rater=f"r{r}") for r, k in enumerate(rng.choice(4, size=6, p=p)))
            noise = Waveform(np.roll(noise_t, len(found)), 16_000)
            found.append(Clip(id, f"speaker{s}", noise, votes, TRANSCRIPT, split))
    prepare(Corpus("small", CLASSES, CLASSES, found, licensed=licensed), out)
    return open_dataset(out)


def small_run(path, dataset, source="human", skill=0.5, seed=0, ratio=0.3):
    """A run directory whose predictions lie `skill` of the way from noise to the truth."""
    rng = np.random.default_rng(seed)
    config = Config(
        out=str(path),
        labels=LabelsConfig(source=source, journal=None if source == "human" else "somewhere/journal.jsonl"),
        data=DataConfig(dataset=str(dataset.path), dime_aug=DimeAugConfig(ratio=ratio)),
        model=dataclasses.replace(ModelConfig(), checkpoint="somewhere/tiny-qwen2-audio"),
    )
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(config))
    (path / "environment.json").write_text(
        json.dumps({"device": "toaster", "devices": 4, "packages": {"jax": "0.10.2"}} | ABOUT)
    )
    lines = []
    for step in range(1, 61):
        loss = 0.25 * np.exp(-step / 25) + 0.1 + rng.normal(0, 0.01)
        lines.append({"step": step, "epoch": 1 + (step - 1) // 10, "loss": loss, "lr": 1e-4, "grad_norm": 1.0})
        if step % 10 == 0:
            val = 0.2 * np.exp(-step / 25) + 0.13
            lines.append({"step": step, "epoch": step // 10, "val_loss": val, "val_js": val / np.log(2)})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ids = dataset.splits["test"]
    noise_nk = rng.dirichlet(np.ones(len(dataset.classes)), len(ids))
    human_nk = human_distributions(dataset, ids)
    probs_nk = skill * human_nk + (1 - skill) * noise_nk
    probe = dict(zip(ids, 0.3 * human_nk + 0.7 / human_nk.shape[1], strict=True))
    predictions = dict(zip(ids, probs_nk, strict=True))
    metrics = evaluate(predictions, dataset, split="test", probe=probe)
    write_evaluation(path / "evaluation" / "test", predictions, metrics, dataset)
    return path
