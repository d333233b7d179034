"""Exact proxies beside transformers: the same log-likelihoods, and ratios that follow from the times."""

import statistics

import numpy as np
import pytest
import toy_runs

from aer_jax.bench import annotate as bench
from aer_jax.bench.tables import text
from aer_jax.config import load_config
from aer_jax.errors import UserError


def test_both_loops_find_our_likelihoods(monkeypatch):
    monkeypatch.setattr(bench, "LISTENERS", 2)
    monkeypatch.setattr(bench, "EVERY", 8)
    settings = [f"model.checkpoint={toy_runs.CHECKPOINT}", f"data.dataset={toy_runs.toy_dataset()}"]
    result = bench.bench_annotate(load_config(None, [*settings, "train.microbatch=16"]), clips=9, passes=1)
    sides = result["sides"]
    assert [side["clips"] for side in sides.values()] == [9, 2, 2, 2]
    assert (result["personas"], result["labels"]) == (5, 4)
    for how in bench.PYTORCH:
        speeds = [sides[name]["clips"] / statistics.median(sides[name]["seconds"]) for name in ("ours", how)]
        assert result[f"ratio_to_{how}"] == pytest.approx(speeds[0] / speeds[1])
        assert sides[how]["votes_per_second"] == pytest.approx(2 * speeds[1])
    assert 0 < sides["loop"]["error"] <= 1e-5 and 0 < sides["careful"]["error"] <= 1e-5
    assert sides["sampled"]["error"] is None and 0 <= sides["sampled"]["parsed"] <= 1
    assert "9 clips, PyTorch 2 of them" in text(result)


def test_differences_are_relative_beyond_one():
    expected = np.array([[[-0.5, -20.0]]])
    assert bench.difference([-0.5, -20.02], expected) == pytest.approx(1e-3)
    assert bench.difference([-0.501, -20.0], expected) == pytest.approx(1e-3)


def test_no_clips_are_refused():
    with pytest.raises(UserError, match="--clips must be at least 1"):
        bench.bench_annotate(load_config(None), clips=0)
