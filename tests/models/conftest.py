"""Tiny checkpoints in Hugging Face layout, and the measured parity errors in pytest's summary."""

from pathlib import Path

import jax
import pytest
import torch
from tiny_qwen2_audio import AUDIO_TOKEN, load_ours, load_torch, prompt, save_tiny, voice

torch.set_num_threads(2)
jax.config.update("jax_default_matmul_precision", "highest")  # parity is about float32, on a GPU too


@pytest.fixture(scope="session")
def tiny_80(tmp_path_factory) -> Path:
    """80 mels, one file."""
    return save_tiny(tmp_path_factory.mktemp("tiny_80"), 80)


@pytest.fixture(scope="session")
def tiny_128(tmp_path_factory) -> Path:
    """128 mels, several shards and their index."""
    path = save_tiny(tmp_path_factory.mktemp("tiny_128"), 128, max_shard_size="100KB")
    assert len(list(path.glob("*.safetensors"))) > 2
    return path


@pytest.fixture(scope="session", params=["tiny_80", "tiny_128"])
def tiny(request) -> Path:
    """Both, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def theirs(tiny):
    return load_torch(tiny)


@pytest.fixture(scope="session")
def ours(tiny):
    return load_ours(tiny)


@pytest.fixture
def parity(record_property):
    """Assert a measured error and put it into the summary."""

    def check(what: str, error: float, *, limit: float = 1e-4, kind: str = "relative") -> None:
        record_property("parity", f"{what:<72} max {kind} error {error:.1e} (limit {limit:.0e})")
        assert error <= limit

    return check


def pytest_terminal_summary(terminalreporter):
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    lines = [line for r in reports if r.when == "call" for name, line in r.user_properties if name == "parity"]
    if lines:
        terminalreporter.section("float32 parity with the PyTorch originals")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def clips():
    """Voices of unequal lengths."""
    return [voice(seconds, seed) for seed, seconds in enumerate((0.4, 1.37, 0.9))]


@pytest.fixture(scope="module")
def prompts(clips):
    """A prompt for each of the clips, of unequal lengths, too."""
    return [prompt(len(clip), 4 + 5 * (b % 2), AUDIO_TOKEN, b) for b, clip in enumerate(clips)]
