"""Damaged settings: one byte changes one setting at most, and none is out of its range."""

import random

import mutations
import yaml

from aer_jax.config import Config, load_config, make_config, to_yaml
from aer_jax.files import strict_yaml
from aer_jax.training.check import check
from aer_jax.training.run import flat

NEEDED = ["out=r", "data.dataset=d", "model.checkpoint=c"]
SETTINGS = [
    "recipe=paper", "data.dataset=data/é", "train.epochs=3", "labels.source=combined", "labels.journal=votes.jsonl",
    "labels.synthetic_weight=learned", "train.lr=3e-4", "model.checkpoint=Qwen/Qwen2-Audio-7B", "out=runs/1",
]  # fmt: skip
# What a person writes: some settings, a comment, a list.
BY_HAND = b"""# A run
out: runs/a
recipe: paper
seed: 3
data:
  dataset: "data/toy"   # made by prepare
  max_seconds: 12.5
  dime_aug: {ratio: 0.5, neighbours: 2}
model:
  lora:
    rank: 4
    targets: ['language_model.*q_proj', audio_tower.*]
train: {epochs: 2, lr: 1e-4}
"""

WORDS = (
    "1 0 -1 nan .nan inf -.inf 1e400 1e-400 true no null ~ [] {} [1] {a:1} 2024-01-01 2024-13-45 010 0o10 0x10 1:30 "
    "1_000 *a ' \" 'a | > - ? % @ ` = ! !! << --- ... # human paper readout learned 1. +1 -0 Infinity \u0661 \xe9"
)
ODD = [
    *WORDS.split(),
    *("", "&a [*a]", "{<<: {a: 1}}", "a: b: c", "> a", "\t1", "a\tb", "\u2028", "\x85", "\0", "\ud800"),
    *(f"!!{tag} x" for tag in ("binary", "int", "float", "bool", "timestamp", "set", "omap", "python/name:os.system")),
    *("9" * 5000, "[" * 2000, "{a: " * 500, "{" * 2000),
]


def judge(way: str, truth: Config, config: Config) -> str | None:
    if make_config(strict_yaml.load(to_yaml(config)), "run") != config:
        return "it is written down as something else"
    changed = [(name, was, now) for (name, was), (_, now) in zip(flat(truth), flat(config), strict=True) if was != now]
    if way == "flip" and {name for name, *_ in changed} - {"recipe"} and len(changed) > 1:
        return f"several settings changed: {changed[:3]}"
    return None if changed else ""


def test_settings(seeds, tally, tmp_path):
    path = tmp_path / "config.yaml"
    for whole in (to_yaml(load_config(None, SETTINGS)).encode(), BY_HAND):
        path.write_bytes(whole)
        truth = load_config(path)
        for seed in seeds(1500):
            rng = random.Random(seed)
            if seed % 4 == 3:
                way, data = mutations.change_value(yaml.safe_load(whole), rng)  # JSON is YAML, too
            else:
                way, data = ("flip", mutations.flip(whole, rng)) if seed % 2 else mutations.damage(whole, rng)
            path.write_bytes(data)
            tally.record(
                f"seed {seed}, {way}",
                lambda: load_config(path),
                lambda config, way=way, truth=truth: judge(way, truth, config),
                str(path),
            )


def test_overrides(seeds, tally):
    truth = load_config(None, NEEDED)
    for seed in seeds(1500):
        rng = random.Random(seed)
        key = rng.choice(
            [*[name for name, _ in flat(Config())], "train", "data.dime_aug", "x", "", ".", "train.epochs.x"]
        )
        override = f"{key}={rng.choice(ODD)}"
        if rng.random() < 0.3:
            override = mutations.damage(override.encode("utf-8", "replace"), rng)[1].decode("utf-8", "replace")

        def read(override=override) -> Config:
            config = load_config(None, [*NEEDED, override])
            check(config)
            return config

        def judge(config, key=key) -> str | None:
            changed = [name for (name, a), (_, b) in zip(flat(config), flat(truth), strict=True) if a != b]
            return None if len(changed) < 2 or key == "recipe" else f"{changed} changed"

        tally.record(f"seed {seed}, {override[:60]!r}", read, judge)
