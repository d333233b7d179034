"""Damaged base checkpoints and adapters: refused, or what they are now is another base to every run that knew them."""

import json
import random
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import mutations
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import aer_jax
from aer_jax.base.config import read_config
from aer_jax.base.fingerprint import fingerprint, is_base
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.config import LoraConfig, ModelConfig
from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.adapters.peft_format import (
    HEAD,
    PREFIX,
    abstract_model,
    adapted_layers,
    adapter_config,
    head_layout,
)
from aer_jax.models.adapters.peft_import import read_adapter
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.weights import load_base

TOY = Path(aer_jax.__file__).parent / "demo" / "checkpoint"
FILES = sorted(file.name for file in TOY.iterdir() if file.is_file())


def load(path: Path):
    """Settings, the tokens of a prompt, and the weights."""
    prompt, config = PromptEncoder(path, ("angry", "sad")), read_config(path)
    model = nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0)))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    load_base(model, Checkpoint(path), lambda path, shape: here, jnp.float32)
    tokens = prompt.encode('Well, "Größe" \u2028.', "", 32_000).tolist()
    weights = {
        jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(nnx.state(model))
    }
    return (config.to_json_string(use_diff=False), tokens), weights


def test_bases(seeds, tally, tmp_path):
    """Weights and settings have no checksum in their format; a run keeps the fingerprint of its base instead."""
    truth, stored = load(TOY), fingerprint(TOY)
    base = Path(shutil.copytree(TOY, tmp_path / "base"))

    def judge(found) -> str | None:
        (texts, weights), (was_texts, was_weights) = found, truth
        if any(not np.isfinite(array).all() for array in weights.values()):
            return "weights that are not finite"
        same = texts == was_texts and weights.keys() == was_weights.keys()
        if same and all(np.array_equal(weights[name], was_weights[name]) for name in weights):
            return ""
        return "another base under the fingerprint of the first" if is_base(stored, base) else None

    for seed in seeds(400):
        rng = random.Random(seed)
        name = rng.choice([*FILES, "model.safetensors", "config.json"])
        whole = (TOY / name).read_bytes()
        if name.endswith(".safetensors") and seed % 2:
            size = 8 + int.from_bytes(whole[:8], "little")
            way, header = (
                mutations.damage(whole[:size], rng) if seed % 4 == 1 else ("flip", mutations.flip(whole[:size], rng))
            )
            data = header + whole[size:]
        elif name.endswith(".json") and seed % 2:
            way, data = mutations.change_value(json.loads(whole), rng)
        else:
            way, data = mutations.damage(whole, rng)
        (base / name).write_bytes(data)
        tally.record(f"seed {seed}, {name} {way}", lambda: load(base), judge, str(base))
        (base / name).write_bytes(whole)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = ModelConfig(checkpoint=str(TOY), adapter=str(folder), lora=LoraConfig(rank=4, alpha=8.0))
    model = abstract_model(config, "abc")
    tensors = {
        f"{PREFIX}{layer.name}.{name}.weight": np.ones(matrix.shape[:-3:-1], np.float32)
        for layer in adapted_layers(model)
        for name, matrix in (("lora_A", layer.lora.a), ("lora_B", layer.lora.b))
    }
    tensors |= {f"{PREFIX}{HEAD}.{n}": np.ones(t.shape, np.float32) for n, t in head_layout(model.emotion_head).items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = adapter_config(model, config) | {"use_rslora": False, "use_dora": False, "rank_pattern": {}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    about = {"classes": ["a", "b", "c"], "base_fingerprint": None, "base": "x", "head": "readout"}
    (folder / "emotion_head.json").write_text(json.dumps(about))
    return folder


def test_adapters(adapter, seeds, tally):
    config = ModelConfig(checkpoint=str(TOY), adapter=str(adapter), lora=LoraConfig(rank=4, alpha=8.0))
    truth = read_adapter(config, ("a", "b", "c")).values

    def judge(found) -> str | None:
        if not found.has_head and "head" in found.note:
            return None  # of other classes, as the note says
        if found.values.keys() != truth.keys():
            return f"{sorted(found.values.keys() ^ truth.keys())} instead of others"
        return "" if all(np.array_equal(found.values[name], truth[name]) for name in truth) else None

    for seed in seeds(800):
        rng = random.Random(seed)
        file = adapter / rng.choice(["adapter_model.safetensors", "adapter_config.json", "emotion_head.json"])
        whole = file.read_bytes()
        if file.suffix == ".json" and seed % 3:
            way, data = mutations.change_value(json.loads(whole), rng)
        else:
            size = 8 + int.from_bytes(whole[:8], "little") if file.suffix == ".safetensors" and seed % 2 else len(whole)
            way, data = mutations.damage(whole[:size], rng)
            data += whole[size:]
        file.write_bytes(data)
        tally.record(
            f"seed {seed}, {file.name} {way}", lambda: read_adapter(config, ("a", "b", "c")), judge, str(adapter)
        )
        file.write_bytes(whole)
