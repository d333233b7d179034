"""Predictions beside a transformers loop: the same probabilities, and ratios that follow from the times."""

import pytest
import toy_runs

from aer_jax.bench import predict as bench
from aer_jax.bench.driver import PYTORCH
from aer_jax.bench.tables import text
from aer_jax.config import load_config


def test_both_loops_give_our_probabilities():
    settings = [f"model.checkpoint={toy_runs.CHECKPOINT}", f"data.dataset={toy_runs.toy_dataset()}"]
    config = load_config(None, [*settings, "train.microbatch=2", "data.shapes=1"])
    result = bench.bench_predict(config, clips=3, passes=1)
    speed = {name: side["utterances_per_second"] for name, side in result["sides"].items()}
    for how in PYTORCH:
        assert result["sides"][how]["probs_error"] <= 1e-5
        assert result[f"ratio_to_{how}_pytorch"] == pytest.approx(speed["ours"] / speed[how])
    assert "PyTorch, the paper's way" in text(result)
