"""Damaged dataset directories: what opens and reads is, to the last sample and vote, what was written."""

import json
import random
import shutil

import mutations
import numpy as np
import pytest

from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [prepare(toy.generate(clips=n, speakers=6), folder / str(n)).path for n in (18, 24)]


def everything(path, verify: bool):
    dataset = open_dataset(path, verify)
    texts = (dataset.name, dataset.classes, dataset.licensed, dataset.utterances, dataset.votes, dataset.splits)
    return (*texts, dataset.speakers, dataset.speakers_apart), [dataset.audio(id) for id in dataset.utterances]


def same(one, other) -> bool:
    return one[0] == other[0] and all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True))


def damage(file, other, rng: random.Random) -> str:
    """Damage a file in place; `other` is the same file of another dataset."""
    way = rng.random()
    if way < 0.04:
        file.unlink()
        return "gone"
    if way < 0.08:
        file.unlink()
        file.mkdir()
        return "a folder"
    if way < 0.12 and other is not None:
        shutil.copy(other, file)
        return "of another dataset"
    if way < 0.45 and file.suffix == ".json":
        what, data = mutations.change_value(json.loads(file.read_bytes()), rng)
    elif way < 0.45 and file.suffix == ".jsonl":
        lines = file.read_bytes().splitlines(keepends=True)
        n = rng.randrange(len(lines))
        lines[n : n + 1] = [lines[n] * 2] if way < 0.2 else [b""] if way < 0.25 else [lines[n - 1], lines[n]]
        what, data = f"line {n}", b"".join(lines)
    elif way < 0.7:
        what, data = "flip", mutations.flip(file.read_bytes(), rng)
    else:
        what, data = mutations.damage(file.read_bytes(), rng)
    file.write_bytes(data)
    return what


def test_datasets(datasets, seeds, tally, tmp_path):
    whole, other = datasets
    truth = everything(whole, True)
    names = sorted(file.name for file in whole.iterdir() if file.suffix in (".json", ".jsonl", ".array_record"))
    assert len(names) == 5
    for seed in seeds(1500):
        rng = random.Random(seed)
        folder = shutil.copytree(whole, tmp_path / "copy")
        name = rng.choice(names)
        what = damage(folder / name, other / name if (other / name).exists() else None, rng)
        tally.record(
            f"seed {seed}, {name} {what}",
            lambda folder=folder, seed=seed: everything(folder, bool(seed % 5 == 0)),
            lambda found: "" if same(found, truth) else "another dataset",
            str(folder),
        )
        shutil.rmtree(folder)
