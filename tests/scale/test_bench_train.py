"""Side by side with PyTorch: all sides compute the same, the figures follow from the times, and a lie is not shown."""

import json

import pytest
import toy_runs
from transformers import Qwen2AudioConfig

from aer_jax import cli
from aer_jax.scale import bench_train as bench
from aer_jax.scale import random_checkpoint
from aer_jax.scale.side import Side

SETTINGS = ["train.batch=2", "train.microbatch=1", "data.shapes=1", "model.remat=none"]
KEYS = {
    "seconds", "input_seconds", "loss", "loss_error", "utterances_per_second", "tokens_per_second", "padded_frames",
    "padded_positions", "mfu", "peak_bytes",
}  # fmt: skip


def run(capsys, *words) -> dict:
    code = cli.main(
        ["bench", *map(str, words), "--data", str(toy_runs.toy_dataset()), "--json", "--steps", "1", *SETTINGS]
    )
    streams = capsys.readouterr()
    assert code == 0, streams.err
    return json.loads(streams.out)


@pytest.fixture
def small_7b(monkeypatch):
    """The published configuration, but small: what is written where no checkpoint is named."""
    small = json.loads(json.dumps(random_checkpoint.published_config(audio_layers=1, text_layers=2)))
    small["audio_config"] |= {"d_model": 32, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    small["text_config"] |= {
        "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 4,
        "vocab_size": 2048,
    }  # fmt: skip
    assert Qwen2AudioConfig.from_dict(small).audio_config.num_mel_bins == 128
    monkeypatch.setattr(random_checkpoint, "published_config", lambda *layers: small)


def test_both_pytorch_sides_have_our_losses_and_the_ratios_are_those_of_the_times(capsys, small_7b, monkeypatch):
    """A dry run of what an accelerator is timed with: random weights, no --model."""
    monkeypatch.delitem(bench.PYTORCH, "careful")  # it differs from `cut` in its windows alone
    result = run(capsys, "train")
    sides = result["sides"]
    assert set(sides) == {"ours", *bench.PYTORCH}
    assert set(sides["ours"]) > KEYS and all(set(sides[how]) >= KEYS for how in bench.PYTORCH)
    for how in bench.PYTORCH:
        assert len(sides[how]["loss"]) == 4 and sides[how]["loss"] == pytest.approx(sides["ours"]["loss"], rel=1e-5)
        assert sides[how]["loss_error"] <= result["tolerance"]
        ratio = sum(sides[how]["seconds"]) / sum(sides["ours"]["seconds"])
        assert result[f"ratio_to_{how}_pytorch"] == pytest.approx(ratio)
        assert sides[how]["utterances_per_second"] == pytest.approx(4 / sum(sides[how]["seconds"]))
    assert sides["ours"]["loss"][0] != sides["ours"]["loss"][1]
    assert sides["paper"]["padded_frames"] > 0.9 > sides["cut"]["padded_frames"]
    assert 0 < sides["ours"]["mfu"] < 1 and sum(sides["ours"]["compile_seconds"].values()) > 0
    text = bench.table(result)
    assert f"{result['ratio_to_paper_pytorch']:.2f}" in text and "the paper's way" in text


@pytest.mark.slow
def test_in_bfloat16_too(capsys, small_7b):
    result = run(capsys, "train", "model.dtype=bfloat16")
    assert result["dtype"] == "bfloat16" and result["tolerance"] == bench.TOLERANCE["bfloat16"]


@pytest.mark.slow
def test_every_ablation_computes_the_same(capsys):
    result = run(capsys, "ablations", "--model", toy_runs.CHECKPOINT)
    errors = {name: side["loss_error"] for name, side in result["sides"].items()}
    assert errors.pop("with dropout") is None
    assert len(errors) >= 5 and max(errors.values()) <= 1e-5
    assert "output layer computed" in bench.table(result)


def test_different_losses_end_the_command_without_times():
    rows = {"ours": {"loss_error": 0.0, "loss": [1.0]}, "careful": {"loss_error": 2e-4, "loss": [1.0002]}}
    bench.refuse_disagreement(rows, 1e-3)
    with pytest.raises(bench.Disagreement, match=r"careful differ from ours by 2\.0e-04"):
        bench.refuse_disagreement(rows, 1e-4)
    with pytest.raises(bench.Disagreement):
        bench.refuse_disagreement(rows | {"careful": {"loss_error": float("nan"), "loss": [float("nan")]}}, 1e-4)
    assert bench.Disagreement.exit_code == 1


def test_bad_input_is_one_sentence(capsys):
    assert cli.main(["bench", "train", "--model", str(toy_runs.CHECKPOINT)]) == 2
    assert "bench train needs --data (or --root)" in capsys.readouterr().err
    assert cli.main(["bench", "predict", "--data", str(toy_runs.toy_dataset())]) == 2
    assert "needs --model" in capsys.readouterr().err


def test_a_side_that_dies_says_so():
    with pytest.raises(RuntimeError, match="died"):
        Side("no_such_side", {})
