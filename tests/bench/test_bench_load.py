"""Loading at size: several gigabytes with the published 7B's names and layout, on eight fake devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Qwen2AudioConfig

import aer_jax
from aer_jax.bench.tables import text
from aer_jax.models.random_checkpoint import published_config, write_random_checkpoint
from aer_jax.models.weights import PIECE

GIGABYTE = 10**9
DEMO = Path(aer_jax.__file__).parent / "demo" / "checkpoint"

# Every array must hold what safetensors' own reader finds, bit for bit.
PROGRAM = """
import glob, json, sys
import jax
import numpy as np
from aer_jax.config import MeshConfig, ModelConfig
from aer_jax.models import weights
from aer_jax.models.weights import load_parameter
from aer_jax.bench import load as bench

loaded = []
def load(parameter, *args):
    array = load_parameter(parameter, *args)
    loaded.append((parameter, array))
    return array
bench.load_parameter = load

checkpoint, dtype, mesh, piece = sys.argv[1:]
weights.PIECE = int(piece)
mesh = MeshConfig(*map(int, mesh.split("x")))
result = bench.bench_load(ModelConfig(checkpoint=checkpoint, dtype=dtype), mesh)
assert jax.device_count() == 8

import safetensors
import torch
files = [safetensors.safe_open(file, "pt") for file in glob.glob(f"{checkpoint}/*.safetensors")]
file_of = {name: file for file in files for name in file.keys()}
names = set()
for parameter, array in loaded:
    for layer, name in enumerate(parameter.names):
        names.add(name)
        theirs = file_of[name].get_tensor(name).to(getattr(torch, dtype))
        ours = array[layer] if parameter.stacked else array
        ours = torch.from_numpy(np.array(ours).view(np.int16 if dtype == "bfloat16" else np.int32))
        ours = ours.view(getattr(torch, dtype)).permute(*range(ours.ndim)[:: -1 if parameter.reverse else 1])
        assert torch.equal(ours, theirs), name
assert names == set(file_of) - {"language_model.lm_head.weight"}, names ^ set(file_of)
print(json.dumps(result))
"""


def load(checkpoint, dtype: str, mesh: str, piece: int = PIECE) -> dict:
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, checkpoint, dtype, mesh, str(piece)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_published_configuration_is_read_as_its_authors_meant_it():
    """The file leaves out what transformers' defaults say; these are the numbers of the 7B."""
    config = Qwen2AudioConfig.from_dict(published_config())
    text, audio = config.text_config, config.audio_config
    assert (text.hidden_size, text.intermediate_size, text.vocab_size) == (4096, 11008, 156032)
    assert (text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads) == (32, 32, 32)
    assert (audio.d_model, audio.encoder_layers, audio.encoder_attention_heads) == (1280, 32, 20)
    assert audio.num_mel_bins == 128 and text.rope_parameters["rope_theta"] == 10000
    assert not text.tie_word_embeddings and text.rms_norm_eps == 1e-5


@pytest.mark.parametrize("mesh", ["1x8x1", "2x2x2"])
def test_eight_devices_hold_the_files_to_the_bit(mesh):
    """In pieces far smaller than any matrix."""
    load(DEMO, "float32", mesh, piece=10_000)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_four_gigabytes_load_within_one(tmp_path, dtype, capsys):
    checkpoint = tmp_path / "checkpoint"
    write_random_checkpoint(checkpoint, text_layers=4)
    result = load(checkpoint, dtype, "1x8x1")
    assert sum(step["bytes"] for step in result["steps"]) >= 4 * GIGABYTE
    assert result["array_bytes"] >= 4 * GIGABYTE
    with capsys.disabled():
        print(f"\n{dtype}\n{text(result)}")
    assert result["host_bytes"] <= GIGABYTE
