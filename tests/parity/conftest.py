"""A tiny random Qwen2-Audio that can read prompts, speech, and lines with the measured errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import pytest
import torch
from our_model import Speech, read_speech
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

jax.config.update("jax_default_matmul_precision", "highest")  # parity is about float32, on a GPU too

DEMO = Path(__file__).resolve().parents[2] / "aer_jax" / "demo" / "checkpoint"
CLIPS = 80


@pytest.fixture(autouse=True)
def one_torch_thread():
    """Torch's threads wait for one another in a busy loop; where cores are shared, one is much faster than two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """The demo's tokenizer before random weights: no bias is 0, no norm is 1, queries are grouped, widths differ."""
    config = Qwen2AudioConfig.from_pretrained(DEMO)
    config.audio_config.d_model, config.audio_config.encoder_ffn_dim = 48, 72
    config.audio_config.encoder_layers, config.audio_config.encoder_attention_heads = 2, 2
    config.text_config.intermediate_size = 96
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm.weight" in name or "layernorm.weight" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.3)
            elif "embed" not in name:
                parameter.normal_(std=1.5 * parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(std=1.0)
    path = tmp_path_factory.mktemp("tiny") / "checkpoint"
    shutil.copytree(DEMO, path)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def real_speech(crema_d_root) -> Speech:
    """CREMA-D; skipped where it is absent."""
    return read_speech(crema_d_root, CLIPS)


@pytest.fixture(scope="session")
def toy_speech() -> Speech:
    """Synthetic clips, everywhere."""
    return read_speech(None, CLIPS)


@pytest.fixture(scope="session")
def best_speech(request) -> Speech:
    """Real speech, or toy clips where there is none."""
    try:
        return request.getfixturevalue("real_speech")
    except pytest.skip.Exception:
        return request.getfixturevalue("toy_speech")


@pytest.fixture
def measured(capsys):
    """Print one line past pytest's capture, so that the figures stand in every log."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n    {line}", end="")

    return show
