"""Features of a frozen base are cached, and never taken from something else."""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import toy_runs

from aer_jax.config import load_config
from aer_jax.data.dataset import open_dataset
from aer_jax.data.prompt import PromptEncoder
from aer_jax.evaluation.projection import gather
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.training import feature_cache, predictor, readout
from aer_jax.training.predictor import Predictor
from aer_jax.training.run import open_run
from aer_jax.training.trainer import train


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "aer_jax" / "features"


@pytest.fixture
def config(cache):
    return load_config(
        None, [f"model.checkpoint={toy_runs.CHECKPOINT}", f"data.dataset={toy_runs.toy_dataset()}", "out=anywhere"]
    )


@pytest.fixture
def dataset():
    return open_dataset(toy_runs.toy_dataset())


def computed(config, dataset, ids, reads="audio", **prompt):
    """Which clips are computed; what comes back is checked: each clip's place in the dataset."""
    some = []

    def rows(ids):
        return np.array([[list(dataset.utterances).index(id), 0.5] for id in ids], np.float32)

    def compute(ids):
        some.extend(ids)
        for i in reversed(range(len(ids))):  # batches come in an order of their own
            yield np.array([i]), rows(ids[i : i + 1])

    encoder = PromptEncoder(toy_runs.CHECKPOINT, dataset.classes, **prompt)
    found_ne = gather(
        ids, lambda ids: feature_cache.cached_features(config, dataset, encoder, ids, compute, reads=reads)
    )
    np.testing.assert_array_equal(found_ne, rows(ids))
    return some


def test_only_clips_that_are_not_cached_are_computed(config, cache, dataset):
    a, b, c, *_ = dataset.utterances
    assert computed(config, dataset, [a, b]) == [a, b]
    assert computed(config, dataset, [c, b, a]) == [c]
    assert computed(config, dataset, [b, c]) == []
    for torn in cache.glob("*/*.safetensors"):
        torn.write_bytes(b"torn")
    assert computed(config, dataset, [b, c]) == [b, c]
    assert computed(config, dataset, [c]) == []


def test_a_file_belongs_to_all_that_the_states_depend_on(config, dataset, monkeypatch):
    def change(section, **values):
        return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})

    some = list(dataset.utterances)[:2]
    computed(config, dataset, some), computed(config, dataset, some, "audio+text")
    # What is learned, by whose votes, in which batches
    for same in (change("train", lr=1.0, microbatch=3), dataclasses.replace(config, seed=5, out="elsewhere")):
        assert computed(same, dataset, some) == []
    fewer = dataclasses.replace(dataset, classes=dataset.classes[:2])
    assert computed(config, fewer, some) == [] == computed(config, dataset, some, transcript=False)
    # The base, the audio; the prompt where it is read
    for other in (change("model", dtype="bfloat16"), change("data", max_seconds=0.5), change("mesh", fsdp=2)):
        assert computed(other, dataset, some) == some
    assert computed(config, fewer, some, "audio+text") == some
    assert computed(config, dataset, some, "audio+text", transcript=False) == some
    assert computed(config, dataset, some, "audio+text") == []
    monkeypatch.setattr(feature_cache, "VERSION", feature_cache.VERSION + 1)
    assert computed(config, dataset, some) == some
    assert computed(config, dataset, some) == []
    monkeypatch.setattr(feature_cache.jax, "process_count", lambda: 2)
    assert computed(config, dataset, some) == some


def test_the_oldest_are_forgotten_and_too_many_are_not_kept(config, cache, dataset, monkeypatch):
    ids = list(dataset.utterances)[:6]
    computed(config, dataset, ids[:1])
    (first,) = cache.glob("*/*.safetensors")
    os.utime(first, (0, 0))
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 4 * first.stat().st_size)
    computed(config, dataset, ids[1:4])
    assert computed(config, dataset, ids[:4]) == []
    computed(config, dataset, ids[4:5])
    assert not first.exists() and len(list(cache.glob("*/*.safetensors"))) == 4
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 7)
    assert computed(config, dataset, ids[5:]) == computed(config, dataset, ids[5:]) == ids[5:]


def test_a_folder_that_cannot_be_written_costs_nothing(config, cache, dataset):
    cache.parent.mkdir(parents=True)
    cache.write_text("")
    some = list(dataset.utterances)[:2]
    assert computed(config, dataset, some) == computed(config, dataset, some) == some


def test_later_runs_and_the_probe_compute_nothing_again(cache, dataset, tmp_path, monkeypatch, capsys):
    fitted = ("train.epochs=0", "model.readout=audio", "data.dime_aug.ratio=0")
    whole, half = (toy_runs.config(tmp_path / name, *fitted) for name in ("one", "two"))
    train(whole)
    assert "features for the readout" in capsys.readouterr().err

    def compute(batches, *_):
        raise AssertionError("computed again")

    monkeypatch.setattr(readout, "predict_blocks", compute)
    monkeypatch.setattr(predictor, "predict_blocks", compute)
    train(half)
    first, second = (toy_runs.saved_arrays(Path(each.out) / "best") for each in (whole, half))
    assert any("deviation" in name for name in first)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    known = [*dataset.splits["train"], *dataset.splits["validation"]]
    audio_statistics = functools.partial(Predictor(open_run(half.out)).audio_statistics, dataset)
    statistics_nf = gather(known, audio_statistics)
    assert statistics_nf.shape == (len(known), len(next(a for name, a in first.items() if "deviation" in name)))
    with pytest.raises(AssertionError, match="computed again"):
        gather(dataset.splits["test"], audio_statistics)


@pytest.mark.parametrize("reads", ["audio", "audio+text"])
def test_evaluate_computes_the_features_of_a_clip_once(cache, dataset, tmp_path, monkeypatch, reads):
    """Of a readout alone: its predictions, the probe and the band share them."""
    run = train(toy_runs.config(tmp_path / "run", "train.epochs=0", f"model.readout={reads}", "data.dime_aug.ratio=0"))
    for kept in dataset.path.glob("linear_probe_*.json"):
        kept.unlink()
    asked = []
    batches = Predictor._batches
    monkeypatch.setattr(Predictor, "_batches", lambda self, *args: asked.extend(args[1]) or batches(self, *args))
    evaluate_run(run.path)
    assert sorted(asked) == sorted(dataset.splits["test"])
    ids = dataset.splits["test"]
    ours = Predictor(open_run(run.path))
    cached_nk = ours.predict_utterances(dataset, ids)
    np.testing.assert_allclose(cached_nk, ours._predict(ours._batches(dataset, ids, ""), len(ids)), atol=1e-6)
    audio_nf = gather(ids, functools.partial(ours.audio_statistics, dataset))
    ours._readout_alone = False
    np.testing.assert_allclose(audio_nf, gather(ids, functools.partial(ours.audio_statistics, dataset)), atol=1e-4)


def test_trained_adapters_are_never_predicted_from_the_cache():
    run = open_run(toy_runs.trained_run())
    dataset = open_dataset(toy_runs.toy_dataset())
    ids = dataset.splits["test"]
    ours = Predictor(run)
    assert not ours._readout_alone
    trained_nk = ours.predict_utterances(dataset, ids)
    ours._readout_alone = True
    assert np.abs(ours.predict_utterances(dataset, ids) - trained_nk).max() > 1e-3
