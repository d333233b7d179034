"""Clips and speakers that were trained on are not scored as unseen, whatever became of the dataset since."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import toy_runs

from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.errors import UserError
from aer_jax.files.content_hash import file_sha256, seal
from aer_jax.labels.votes import Vote
from aer_jax.training.run import create_run, read_run
from aer_jax.training.training_data import FILE, Relation, compare, save_training_data

PARTS = {"train": "abc", "validation": "d", "test": "ef"}


def made(path, parts=PARTS, name="little", clip="u", prefix="", votes=("glad", "sad"), sound=None):
    """Two clips of each speaker, of the split that `parts` names; their audio goes by `sound`, or else `clip`."""
    noise_t = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    names = [
        (part, voice, f"{clip}{voice}{take}", f"{sound or clip}{voice}{take}")
        for part, voices in parts.items()
        for voice in voices
        for take in "01"
    ]
    clips = [
        Clip(
            id,
            prefix + voice,
            Waveform(np.roll(noise_t, int.from_bytes(name.encode()) % 3999), 16_000),
            tuple(Vote(id, label) for label in votes),
            split=part,
        )
        for part, voice, id, name in names
    ]
    return prepare(Corpus(name, ("glad", "sad"), ("glad", "sad"), clips), path)


@pytest.fixture(scope="module")
def base_run(tmp_path_factory):
    """A run that was begun on the dataset `made` makes."""
    folder = tmp_path_factory.mktemp("run")
    dataset = made(folder / "data")
    run = create_run(toy_runs.config(folder / "run", f"data.dataset={dataset.path}"), dataset.classes)
    save_training_data(run, dataset)
    return run


@pytest.fixture
def run(base_run, tmp_path):
    return read_run(shutil.copytree(base_run.path, tmp_path / "run"))


def test_the_same_dataset_is_scored_without_a_word_wherever_it_lies(run, tmp_path):
    copy = open_dataset(shutil.copytree(run.config.data.dataset, tmp_path / "copy"))
    for split in PARTS:
        assert compare(run, copy, split) == Relation(same=True, note="")


def test_swapped_splits_are_refused(run, tmp_path):
    """Train and test exchanged by hand, digests and all."""
    path = shutil.copytree(run.config.data.dataset, tmp_path / "copy")
    splits = json.loads((path / "splits.json").read_text())
    splits["train"], splits["test"] = splits["test"], splits["train"]
    (path / "splits.json").write_text(json.dumps(splits))
    with pytest.raises(UserError, match=r"splits.json is not what was written; .*--split"):
        open_dataset(path)
    about = json.loads((path / "dataset.json").read_text())
    about["sha256"]["splits.json"] = file_sha256(path / "splits.json")
    (path / "dataset.json").write_text(json.dumps(seal(about)))
    swapped = open_dataset(path)
    with pytest.raises(
        UserError, match=r"its training saw 6 of the 6 clips of this test split, ua0 .*--split train\.?"
    ):
        compare(run, swapped, "test")
    assert "saw 0 of the 4 clips of this train split" in compare(run, swapped, "train").note
    assert "none of the clips and speakers of this validation split" in (compare(run, swapped, "validation").note)


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        ({"parts": {"train": "abe", "validation": "d", "test": "cf"}}, "test", "2 of the 4 clips of this test split"),
        ({"parts": {"train": "abc", "validation": "e", "test": "df"}}, "test", "2 of the 4 clips of this test split"),
        ({"parts": {"train": "abd", "validation": "c", "test": "ef"}}, "validation", "2 of the 2 clips"),
        ({"clip": "v", "parts": {"train": "abe", "validation": "d", "test": "cf"}}, "test", "1 of the 2 speakers"),
        ({"name": "other", "parts": {"train": "abe", "validation": "d", "test": "cf"}}, "test", "2 of the 4 clips"),
        ({"name": "other", "clip": "v", "prefix": "new-", "sound": "u",
          "parts": {"test": "ab", "train": "ef", "validation": "d"}}, "test", "4 of the 4 clips"),
    ],
)  # fmt: skip
def test_what_was_trained_on_is_refused(run, tmp_path, change, split, words):
    with pytest.raises(UserError, match=f"its training saw {words}"):
        compare(run, made(tmp_path / "new", **change), split)


@pytest.mark.parametrize(
    ("change", "split", "words"),
    [
        ({"votes": ("glad", "sad", "sad")}, "test", "none of the clips and speakers of this test split"),
        ({"parts": PARTS | {"test": "efgh"}}, "test", "none of the clips and speakers"),
        ({"parts": {"train": "abe", "validation": "c", "test": "df"}}, "train", "saw 4 of the 6 clips"),
        ({"clip": "v", "prefix": "new-"}, "test", "none of the clips and speakers"),
        ({"name": "other", "clip": "v", "parts": {"train": "efg", "validation": "d", "test": "ab"}}, "test",
         "2 of the 2 speakers of this test split have names that its training saw, a .* taken for other people"),
    ],
)  # fmt: skip
def test_what_was_not_is_scored_and_said(run, tmp_path, change, split, words):
    """More votes, more clips, another corpus: all of them are other datasets than the one trained on."""
    relation = compare(run, made(tmp_path / "new", **change), split)
    assert not relation.same and relation.note.startswith(str(tmp_path / "new"))
    assert re.search(words, relation.note), relation.note


def test_a_readout_learned_from_the_validation_split_too(run, tmp_path):
    new = made(tmp_path / "new", votes=("sad", "sad"))
    assert "none of the clips" in compare(run, new, "validation").note
    settings = dataclasses.replace(run.config, train=dataclasses.replace(run.config.train, epochs=0))
    with pytest.raises(UserError, match="saw 2 of the 2 clips of this validation split"):
        compare(dataclasses.replace(run, config=settings), new, "validation")


def test_runs_of_older_versions(run, tmp_path):
    """They kept a digest of their dataset and not its speakers; the first ones not even that."""
    environment = {key: value for key, value in run.environment.items() if key != "training_data"}
    older = dataclasses.replace(run, environment=environment)
    assert compare(older, open_dataset(run.config.data.dataset), "test").same
    new = made(tmp_path / "new", votes=("sad", "sad"))
    with pytest.raises(UserError, match=r"did not keep its speakers, so whether the test split was trained on cannot"):
        compare(older, new, "test")
    assert "which of its clips were cannot be told" in compare(older, new, "train").note
    first = dataclasses.replace(run, environment={"base": environment["base"]})
    assert "whether it was on this test split cannot be checked" in compare(first, new, "test").note


def test_a_record_that_changed_is_refused(run, tmp_path):
    new = made(tmp_path / "new", votes=("sad", "sad"))
    text = (run.path / FILE).read_text()
    for harm in (text.replace('"ua0": "a", ', ""), "[]", "{", ""):
        (run.path / FILE).write_text(harm)
        with pytest.raises(UserError, match=f"{FILE} is gone or is not what was written"):
            compare(run, new, "test")
