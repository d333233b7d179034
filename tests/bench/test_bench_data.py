"""The data bench: both pipelines hear the same, every part is timed, and what cannot work is one sentence."""

import json

import numpy as np
import pytest
import toy_runs
from transformers import WhisperFeatureExtractor

from aer_jax import cli
from aer_jax.bench import data as bench
from aer_jax.bench.driver import BenchWorker, Disagreement
from aer_jax.bench.tables import text
from aer_jax.config import load_config
from aer_jax.errors import UserError

CLIPS = 12


@pytest.fixture(scope="module")
def result():
    config = load_config(None, [f"data.dataset={toy_runs.toy_dataset()}", "data.augment=0.8", "train.microbatch=5"])
    return bench.bench_data(config, clips=CLIPS, epochs=2)


def test_every_part_of_both_is_timed(result):
    json.dumps(result)
    assert set(result["parts"]) == {"all", "host"}
    for part in result["parts"].values():
        for side in ("ours", "pytorch"):
            assert len(part[side]["seconds"]) == 2 and min(part[side]["seconds"]) > 0
            assert part[side]["per_second"] == pytest.approx(CLIPS / np.median(part[side]["seconds"]))
            assert part[side]["fastest_per_second"] == pytest.approx(CLIPS / min(part[side]["seconds"]))
        assert part["ratio"] == pytest.approx(part["ours"]["per_second"] / part["pytorch"]["per_second"])
    assert result["ratio"] == result["parts"]["all"]["ratio"]
    assert result["ratio_without_our_mel"] == result["parts"]["host"]["ratio"]


def test_both_read_the_same_and_pytorch_padded_to_thirty_seconds(result):
    """`bench_data` itself compares utterance by utterance; see below."""
    assert result["heard"]["clips"] == CLIPS and result["heard"]["seconds"] > CLIPS
    assert result["pytorch_frames"] == WhisperFeatureExtractor().nb_max_frames == 3000
    assert 0 < result["augmented"] < CLIPS


def test_the_table_shows_every_part_and_ratio(result):
    shown = text(result)
    for part, name in bench.PARTS.items():
        assert f"| {name} " in shown and f" {result['parts'][part]['ratio']:.1f} |" in shown
    assert f"{CLIPS} clips" in shown


@pytest.mark.parametrize("other", [["b", 100, 0.5], ["a", 103, 0.5], ["a", 100, 0.51]])
def test_pipelines_that_give_different_audio_are_not_compared(other):
    bench.check_same_signals([["a", 100, 0.5]], [["a", 101, 0.501]])
    with pytest.raises(Disagreement, match="different"):
        bench.check_same_signals([["a", 100, 0.5]], [other])


def test_settings_out_of_range_and_no_dataset(capsys):
    with pytest.raises(UserError, match=r"data\.max_seconds is 31"):
        load_config(None, [f"data.dataset={toy_runs.toy_dataset()}", "data.max_seconds=31"])
    assert cli.main(["bench", "data", "--data", "/nowhere"]) == 2
    assert "/nowhere is not a dataset" in capsys.readouterr().err


def test_without_pytorch_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"torch.*aer-jax\[bench\]"), BenchWorker("pytorch_data", {}):
        pass
