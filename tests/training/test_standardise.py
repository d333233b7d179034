"""Means and deviations of the readout: measured once, found again, and never taken from something else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import toy_runs

from aer_jax.config import load_config
from aer_jax.training import standardise
from aer_jax.training.loop import train
from aer_jax.training.standardise import Moments, file_for, kept

MOMENTS = Moments(np.arange(3, dtype=np.float32), np.ones(3, np.float32))


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return load_config(
        None, [f"model.checkpoint={toy_runs.CHECKPOINT}", f"data.dataset={toy_runs.toy_dataset()}", "out=anywhere"]
    )


def never():
    raise AssertionError("measured again")


def test_what_was_measured_is_found_again_and_a_damaged_file_is_mended(config):
    file = file_for(config, ["a", "b"])
    kept(file, 3, lambda: MOMENTS)
    for _ in range(2):
        np.testing.assert_array_equal(kept(file, 3, never), MOMENTS)
        file.write_bytes(b"torn")
        kept(file, 3, lambda: MOMENTS)
    assert kept(file, 4, lambda: Moments(np.zeros(4), np.ones(4))).mean_e.shape == (4,)
    assert kept(None, 3, lambda: MOMENTS) is MOMENTS


def test_a_folder_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert kept(tmp_path / "file" / "below.safetensors", 3, lambda: MOMENTS) is MOMENTS


def test_the_file_belongs_to_all_that_the_moments_depend_on(config, tmp_path):
    def change(section, **values):
        return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})

    same = [
        file_for(each, ["a", "b"])
        for each in (config, change("train", lr=1.0), dataclasses.replace(config, seed=5, out="elsewhere"))
    ]
    assert len(set(same)) == 1
    others = [
        file_for(config, ["b", "a"]),
        *(
            file_for(change(section, **values), ["a", "b"])
            for section, values in (
                ("model", {"dtype": "bfloat16"}),
                ("model", {"readout": "audio"}),
                ("data", {"transcript": not config.data.transcript}),
                ("data", {"max_seconds": 2.0}),
                ("train", {"microbatch": 3}),
            )
        ),
    ]
    assert len({*same, *others}) == 1 + len(others)
    assert file_for(change("model", adapter=str(tmp_path)), ["a"]) is None


def test_a_second_run_does_not_hear_the_clips_again_and_is_the_same(config, tmp_path, monkeypatch, capsys):
    begun = [toy_runs.config(tmp_path / name, "train.epochs=1", "data.dime_aug.ratio=0") for name in ("one", "two")]
    train(begun[0])
    assert "standardise" in capsys.readouterr().err
    monkeypatch.setattr(standardise, "measure", never)
    train(begun[1])
    assert "standardise" not in capsys.readouterr().err
    first, second = (toy_runs.saved_arrays(Path(each.out) / "best") for each in begun)
    assert any("deviation" in name for name in first)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
