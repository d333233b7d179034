"""Rates and utilisation against counts by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from flax import nnx
from toy_runs import CHECKPOINT

import aer_jax
from aer_jax.config import ModelConfig
from aer_jax.models.emotion_model import EmotionModel, read_config
from aer_jax.training.step import take_apart
from aer_jax.training.throughput import Throughput, flops_4n

COUNTS = {"utterances": 8.0, "frames": 4000.0, "tokens": 900.0, "padded_tokens": 1000.0}


def frozen_of(base_config):
    model = nnx.eval_shape(lambda: EmotionModel(base_config, ModelConfig(), 4, rngs=nnx.Rngs(0)))
    return take_apart(model).frozen


def device(kind, memory=None, process=0):
    return SimpleNamespace(device_kind=kind, process_index=process, memory_stats=lambda: memory)


@pytest.fixture(scope="module")
def frozen():
    return frozen_of(read_config(CHECKPOINT))


def test_weights_of_the_toy_by_hand(frozen):
    """Width 64 everywhere; 3 layers each; 2 of 4 heads hold keys and values; feed-forward 256 and 192."""
    per_frame, per_token = flops_4n(frozen)
    tower = 3 * (4 * 64 * 64 + 2 * 64 * 256) + 3 * 64 * 64
    assert per_frame == 4 * (3 * 80 * 64 + tower / 2 + 64 * 64 / 4)
    assert per_token == 4 * 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 192)


def test_rates(frozen):
    per_frame, per_token = flops_4n(frozen)
    rates = Throughput(frozen, [device("cpu")])(COUNTS, 2.0)
    flops = per_frame * 4000 + per_token * 900
    assert rates == {
        "utterances_per_second": 4,
        "tokens_per_second": 450,
        "padded_tokens_per_second": 500,
        "model_flops_per_second": pytest.approx(flops / 2, rel=1e-3),
    }


def test_utilisation_and_memory(frozen):
    """Of all chips; memory of the fullest one here."""
    flops = Throughput(frozen, [device("cpu")])(COUNTS, 1.0)["model_flops_per_second"]
    stats = [{"bytes_in_use": 5, "peak_bytes_in_use": 9}, {"bytes_in_use": 7, "peak_bytes_in_use": 8}]
    chips = [device("TPU v5 lite", each) for each in stats]
    chips += [device("TPU v5 lite", {"bytes_in_use": 100}, process=1)] * 2
    seconds = flops / (4 * 197e12) / 0.4
    rates = Throughput(frozen, chips)(COUNTS, seconds)
    assert rates["mfu"] == pytest.approx(0.4, rel=1e-3)
    assert rates["hbm_bytes"] == 7 and rates["hbm_peak_bytes"] == 9


def test_the_step_counts_what_is_real(kit, batch):
    """Fillers and padding are left out, whatever the microbatch."""
    batch = dict(batch, weight=batch["weight"].copy())
    batch["weight"][5:] = 0
    for microbatch in (4, 8):
        metrics = kit.step(batch, microbatch)[1]
        assert metrics["utterances"] == 5
        assert metrics["tokens"] == batch["token_mask"][:5].sum()
        assert metrics["frames"] == sum(-(-int(n) // 160) for n in batch["audio_samples"][:5])
        assert metrics["padded_tokens"] == batch["token_mask"].size


def test_published_model():
    """Qwen2-Audio-7B: Whisper-large's encoder (637 M parameters in 32 layers of width 1280) and Qwen-7B's layers."""
    from transformers import Qwen2AudioConfig

    shapes = json.loads((Path(aer_jax.__file__).parent / "scale" / "qwen2_audio_7b.json").read_text())
    per_frame, per_token = flops_4n(frozen_of(Qwen2AudioConfig(**shapes)))
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008
    assert per_token == 4 * 32 * layer
    encoder = 32 * (4 * 1280**2 + 2 * 1280 * 5120)
    assert per_frame == pytest.approx(4 * encoder / 2, rel=0.02)
