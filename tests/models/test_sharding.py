"""The mesh, what the rules divide, and that eight devices predict what one predicts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P
from transformers import Qwen2AudioConfig

from aer_jax.config import LoraConfig, MeshConfig, ModelConfig
from aer_jax.errors import UserError
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.models.sharding import AXES, RULES, make_mesh, sharding


@pytest.fixture(scope="module")
def published():
    """Shapes of the 7B model with every adapter that the paper's pattern gives, and its head: path -> shape."""
    text = {"model_type": "qwen2", "vocab_size": 156032, "intermediate_size": 11008}
    settings = ModelConfig(head="paper", lora=LoraConfig())
    model = nnx.eval_shape(lambda: EmotionModel(Qwen2AudioConfig(text_config=text), settings, 4, rngs=nnx.Rngs(0)))
    return {path: variable.shape for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def spec(published, name: str, mesh) -> P:
    path = next(path for path in published if ".".join(path) == name)
    return sharding(mesh, path, published[path]).spec


def test_matrices_adapters_and_biases_follow_the_block(published):
    mesh = AbstractMesh((1, 4, 4), AXES)
    layer = "base.language_model.layers"
    assert spec(published, f"{layer}.self_attn.q_proj.kernel", mesh) == P(None, "fsdp", "tensor")
    assert spec(published, f"{layer}.self_attn.q_proj.bias", mesh) == P(None, "tensor")
    assert spec(published, f"{layer}.self_attn.q_proj.lora.a", mesh) == P(None, "fsdp", None)
    assert spec(published, f"{layer}.self_attn.q_proj.lora.b", mesh) == P(None, None, "tensor")
    assert spec(published, f"{layer}.self_attn.o_proj.kernel", mesh) == P(None, "tensor", "fsdp")
    assert spec(published, f"{layer}.self_attn.o_proj.lora.a", mesh) == P(None, "tensor", None)
    assert spec(published, f"{layer}.self_attn.o_proj.lora.b", mesh) == P(None, None, "fsdp")
    assert spec(published, f"{layer}.input_layernorm.scale", mesh) == P(None, None)
    assert spec(published, "base.audio_tower.layers.fc2.bias", mesh) == P(None, None)
    assert spec(published, "base.language_model.embed_tokens.embedding", mesh) == P("tensor", "fsdp")
    assert spec(published, "emotion_head.linear1.kernel", mesh) == P("fsdp", "tensor")


def test_every_rule_names_something_and_no_stack_is_divided_along_its_layers(published):
    mesh = AbstractMesh((2, 2, 2), AXES)
    first = {next(i for i, (rule, _) in enumerate(RULES) if re.search(rule, ".".join(path))) for path in published}
    assert first == set(range(len(RULES)))
    for path, shape in published.items():
        if "layers" in path:
            assert sharding(mesh, path, shape).spec[0] is None


@pytest.mark.parametrize("sizes", [(1, 16, 1), (1, 4, 4), (2, 4, 4), (8, 16, 1)])
def test_a_chip_holds_its_share_of_the_published_model(published, sizes):
    mesh = AbstractMesh(sizes, AXES)
    whole = sum(int(np.prod(shape)) for shape in published.values())
    held = sum(int(np.prod(sharding(mesh, path, shape).shard_shape(shape))) for path, shape in published.items())
    assert held == pytest.approx(whole / (sizes[1] * sizes[2]), rel=0.03)  # what is replicated is small


def test_what_a_mesh_axis_does_not_divide_is_replicated():
    mesh = AbstractMesh((1, 4, 3), AXES)
    assert sharding(mesh, ["x", "q_proj", "kernel"], (6, 10, 9)).spec == P(None, None, "tensor")
    assert sharding(mesh, ["x", "q_proj", "kernel"], (8, 10)).spec == P("fsdp", None)


@pytest.mark.parametrize(
    ("shape", "count", "sizes"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(data=2, fsdp=-1, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(data=1, fsdp=4, tensor=2), 8, (1, 4, 2)),
        (MeshConfig(data=3, fsdp=1, tensor=2), 8, None),
        (MeshConfig(data=-1, fsdp=3, tensor=1), 8, None),
        (MeshConfig(data=-1, fsdp=-1, tensor=1), 8, None),
        (MeshConfig(data=-2, fsdp=-4, tensor=1), 8, None),
        (MeshConfig(data=0, fsdp=8, tensor=1), 8, None),
        (MeshConfig(data=4, fsdp=1, tensor=1), 8, None),
    ],
)
def test_mesh_sizes_multiply_to_the_devices(shape, count, sizes, monkeypatch):
    monkeypatch.setattr(jax, "make_mesh", lambda sizes, axes, **kwargs: dict(zip(axes, sizes, strict=True)))
    if sizes is None:
        with pytest.raises(UserError, match="does not make 8 devices; change the mesh section"):
            make_mesh(shape, [None] * count)
    else:
        assert make_mesh(shape, [None] * count) == dict(zip(AXES, sizes, strict=True))


EIGHT_DEVICES = """
import json, sys
import jax, numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from tiny_qwen2_audio import unequal_batch
from aer_jax.config import LoraConfig, MeshConfig, ModelConfig
from aer_jax.models.emotion_model import TRAINABLE, load_model
from aer_jax.models.sharding import BATCH, make_mesh

assert len(jax.devices()) == 8
_, batch = unequal_batch("right", seconds=np.linspace(0.2, 0.9, 8))
config = ModelConfig(checkpoint=sys.argv[1], head="paper", lora=LoraConfig(rank=4))
found = {}
for sizes in [(1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)]:
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    model = load_model(config, "abcd", mesh, seed=0)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.LoRAParam)):
        random = 0.1 * np.random.default_rng(len(str(path))).standard_normal(variable.shape)
        variable.set_value(jax.device_put(random.astype("float32"), variable.sharding))
    laid = jax.device_put(batch, NamedSharding(mesh, BATCH))
    predictions = nnx.jit(lambda model, batch: jax.nn.softmax(model(batch)))(model, laid)
    kernel = model.base.language_model.layers.mlp.up_proj.kernel
    found["x".join(map(str, sizes))] = {
        "predictions": np.asarray(predictions).tolist(),
        "devices": len(kernel.sharding.device_set),
        "share": kernel.size / kernel.addressable_shards[0].data.size,
    }
print(json.dumps(found))
"""


def test_eight_devices_predict_what_one_predicts(tiny_80):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",  # quick to compile
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", EIGHT_DEVICES, tiny_80]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    one = np.array(found.pop("1x1x1")["predictions"])
    assert np.ptp(one, axis=0).max() > 0.1
    assert {name: run["share"] for name, run in found.items()} == {"8x1x1": 1, "1x8x1": 8, "2x2x2": 4}
    for name, run in found.items():
        assert run["devices"] == 8
        np.testing.assert_allclose(run["predictions"], one, rtol=0, atol=1e-5, err_msg=name)


# What log_mel makes of 8 clips on a mesh whose rows are divided by 4, and the shapes that its Fourier transforms have.
LOG_MEL = """
import json, re
import jax
import numpy as np
from jax.sharding import NamedSharding
from aer_jax.config import MeshConfig
from aer_jax.models.log_mel import log_mel
from aer_jax.models.sharding import BATCH, make_mesh

audio_bs = np.random.default_rng(0).normal(size=(8, 1600)).astype(np.float32)
one = np.asarray(jax.jit(log_mel, static_argnums=1)(audio_bs, 80))
mesh = make_mesh(MeshConfig(2, 2, 2))
jax.set_mesh(mesh)
laid = jax.device_put(audio_bs, NamedSharding(mesh, BATCH))
compiled = jax.jit(log_mel, static_argnums=1).lower(laid, 80).compile()
text, error = compiled.as_text(), float(np.abs(np.asarray(compiled(laid)) - one).max())
print(json.dumps([error, "all-gather" in text, re.findall(r"c64\\[(\\d+),10,201\\]\\S* fft", text)]))
"""


def test_each_device_hears_its_own_clips():
    """XLA alone would gather all of them on every device, for it does not divide a Fourier transform."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", LOG_MEL], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    error, gathers, rows = json.loads(done.stdout)
    assert error < 1e-5 and not gathers and rows == ["2"]
