"""Random damage to checkpoints and adapters: read right or refused in one sentence, never a traceback.

`pytest -m fuzz` runs it for half a minute a test.
"""

import copy
import json
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import aer_jax
from aer_jax.base_config import read_config
from aer_jax.config import LoraConfig, ModelConfig
from aer_jax.data.chat import Chat
from aer_jax.errors import UserError
from aer_jax.models.peft_format import HEAD, PREFIX, abstract_model, adapted_layers, adapter_config, head_layout
from aer_jax.models.peft_import import read_adapter
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.safetensors_files import Checkpoint
from aer_jax.models.weights import check_fit

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]

TOY = Path(aer_jax.__file__).parent / "demo" / "checkpoint"
SECONDS = 30
JSON_FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json")
ODD = (
    None, True, False, 0, -1, 1, 7, 10**6, 10**20, -(10**20), 0.5, 1e308, float("nan"), float("inf"), "", "x", "64", [],
    [1], ["a"], {}, {"a": 1}, "<|AUDIO|>", "../x", "\u2028", [None], [[[]]], "left",
)  # fmt: skip


def places(value, path=()):
    """Where something stands in nested JSON; of long lists the first three."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def damaged(content, rng: random.Random):
    """A copy with one value replaced or removed, and what was done."""
    content, path = copy.deepcopy(content), rng.choice([p for p in places(content) if p[:2] != ("model", "vocab")])
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    value = rng.choice(ODD)
    if rng.random() < 0.15:
        parent.pop(path[-1])
        return content, f"{path} removed"
    parent[path[-1]] = value
    return content, f"{path} = {value!r}"


def sentence_or_nothing(run, what: str) -> None:
    try:
        run()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1200, what
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {what}") from error


def fit(path: Path) -> None:
    Chat(path)
    config = read_config(path)
    model = nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0)))
    check_fit(model, Checkpoint(path))


@pytest.mark.parametrize("name", JSON_FILES)
def test_settings_of_a_checkpoint(tmp_path, name):
    rng, base = random.Random(name), Path(shutil.copytree(TOY, tmp_path / "base"))
    whole, end = json.loads((TOY / name).read_text()), time.monotonic() + SECONDS
    while time.monotonic() < end:
        content, what = damaged(whole, rng)
        (base / name).write_text(json.dumps(content))
        sentence_or_nothing(lambda: fit(base), f"{name}: {what}")


def test_headers_of_weights(tmp_path):
    rng, base = random.Random(0), Path(shutil.copytree(TOY, tmp_path / "base"))
    file = base / "model.safetensors"
    whole, good = file.read_bytes(), Checkpoint(TOY).tensors
    size, end = 8 + int.from_bytes(whole[:8], "little"), time.monotonic() + SECONDS
    while time.monotonic() < end:
        header = bytearray(whole[:size])
        for _ in range(rng.choice((1, 1, 3))):
            header[rng.randrange(size)] = rng.randrange(256)
        file.write_bytes(bytes(header) + whole[size:])
        sentence_or_nothing(lambda: same_places(Checkpoint(base).tensors, good), f"header {bytes(header[:40])!r}...")


def same_places(tensors, good) -> None:
    """Tensors that kept their names are where they were; `check_fit` refuses other names and shapes."""
    for name in tensors.keys() & good.keys():
        if tensors[name].shape == good[name].shape and tensors[name].dtype == good[name].dtype:
            assert tensors[name].start == good[name].start


def test_adapters(tmp_path):
    rng, folder = random.Random(0), tmp_path
    config = ModelConfig(checkpoint=str(TOY), adapter=str(folder), lora=LoraConfig(rank=4, alpha=8.0))
    model = abstract_model(config, 3)
    tensors = {
        f"{PREFIX}{layer.name}.{name}.weight": np.ones(matrix.shape[:-3:-1], np.float32)
        for layer in adapted_layers(model)
        for name, matrix in (("lora_A", layer.lora.a), ("lora_B", layer.lora.b))
    }
    tensors |= {f"{PREFIX}{HEAD}.{n}": np.ones(t.shape, np.float32) for n, t in head_layout(model.emotion_head).items()}
    file = folder / "adapter_model.safetensors"
    save_file(tensors, file)
    whole, end = file.read_bytes(), time.monotonic() + SECONDS
    settings = adapter_config(model, config) | {"use_rslora": False, "use_dora": False, "rank_pattern": {}}
    about = {"classes": ["a", "b", "c"], "base_fingerprint": None, "base": "x", "head": "readout"}
    while time.monotonic() < end:
        made, said, content, what = settings, about, whole, ""
        match rng.choice(("settings", "about", "byte", "cut")):
            case "settings":
                made, what = damaged(settings, rng)
            case "about":
                said, what = damaged(about, rng)
            case "byte":
                at = rng.randrange(8 + int.from_bytes(whole[:8], "little"))
                content, what = whole[:at] + rng.randbytes(1) + whole[at + 1 :], f"byte {at}"
            case _:
                content = whole[: rng.randrange(len(whole))]
        (folder / "adapter_config.json").write_text(json.dumps(made))
        (folder / "emotion_head.json").write_text(json.dumps(said))
        file.write_bytes(content)
        sentence_or_nothing(lambda: read_adapter(config, ("a", "b", "c")), what or "a cut file")
