"""The trained model: who is trained, batch independence, filler rows, and checkpoints that are none."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_runs
from flax import nnx
from tiny_qwen2_audio import make_batch, unequal_batch

from aer_jax.base import fingerprint as fingerprints
from aer_jax.base.config import read_config
from aer_jax.base.fingerprint import _first_form, fingerprint, is_base
from aer_jax.config import LoraConfig, MeshConfig, ModelConfig
from aer_jax.errors import UserError
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.emotion_model import TRAINABLE, load_model
from aer_jax.models.sharding import make_mesh

CLASSES = 4


def load(path, head="paper", seed=0, **settings):
    """On one device, with adapters and readout that do something."""
    config = ModelConfig(checkpoint=str(path), head=head, lora=LoraConfig(rank=4), **settings)
    model = load_model(config, "abcd"[:CLASSES], make_mesh(MeshConfig(), jax.devices()[:1]), seed)
    for _, variable in nnx.to_flat_state(nnx.state(model, TRAINABLE)):
        if not np.any(variable[...]):
            variable[...] = 0.3 * jax.random.normal(jax.random.key(variable.size), variable.shape)
    return model


@pytest.fixture(scope="module")
def with_paper_head(tiny_80):
    return load(tiny_80)


@pytest.fixture(scope="module")
def with_readout(tiny_80):
    return load(tiny_80, "readout")


@pytest.fixture(scope="module", params=["with_paper_head", "with_readout"])
def model(request):
    return request.getfixturevalue(request.param)


@nnx.jit
def predict(model, batch):
    return jax.nn.softmax(model(batch))


def test_a_prediction_depends_on_neither_neighbours_nor_padding(model):
    clips, batch = unequal_batch("right")
    together = predict(model, batch)
    assert np.ptp(together, axis=0).min() > 1e-2, "the rows must differ for this test to see anything"
    np.testing.assert_allclose(predict(model, unequal_batch("left")[1]), together, atol=1e-5)
    for b in (0, 2):
        tokens = np.asarray(batch.tokens[b])[np.asarray(batch.token_mask[b])].tolist()
        alone = predict(model, make_batch([clips[b]], [tokens], "right"))
        np.testing.assert_allclose(alone[0], together[b], atol=1e-5)


@pytest.fixture(scope="module")
def gradient(model):
    """(batch, weights of its two rows) -> the trainables' gradient; compiled once."""
    graphdef, trained, rest = nnx.split(model, TRAINABLE, ...)

    @jax.jit
    def gradient(batch, weight_b):
        def loss(trained):
            return (jax.nn.log_softmax(nnx.merge(graphdef, trained, rest)(batch))[:, 0] * weight_b).sum()

        return jax.grad(loss)(trained)

    return lambda batch, *weights: gradient(batch, jnp.array(weights))


def test_changing_only_the_audio_changes_prediction_and_gradient(model, gradient):
    _, batch = unequal_batch("right", seconds=(0.5, 0.9))
    other = batch._replace(audio=batch.audio[:, ::-1])
    assert np.abs(predict(model, batch) - predict(model, other)).max() > 1e-3
    change = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), gradient(batch, 1, 1), gradient(other, 1, 1))
    assert max(jax.tree.leaves(change["base"])) > 1e-4


def test_a_filler_row_changes_no_gradient(gradient):
    """A row of weight 0 without a single valid sample or token, as the last batch of an epoch may hold."""
    _, batch = unequal_batch("right", seconds=(0.5, 0.9))
    filler = batch._replace(
        audio=batch.audio.at[1].set(0),
        audio_samples=batch.audio_samples.at[1].set(0),
        token_mask=batch.token_mask.at[1].set(False),
    )
    close = jax.tree.map(
        lambda a, b: bool(jnp.allclose(a, b, atol=1e-5)), gradient(filler, 1, 0), gradient(batch, 1, 0)
    )
    assert all(jax.tree.leaves(close))


def test_only_adapters_and_head_are_trained(model):
    trained = nnx.to_flat_state(nnx.state(model, TRAINABLE))
    assert {path[0] for path, _ in trained} == {"base", "emotion_head"}
    assert all("lora" in path for path, _ in trained if path[0] == "base")
    assert not any(isinstance(variable, HeadStatistics) for _, variable in trained)


def test_the_seed_draws_adapters_and_head(tiny_80, with_paper_head):
    models = (with_paper_head, load(tiny_80), load(tiny_80, seed=1))
    one, same, other = (nnx.state(model, TRAINABLE) for model in models)
    equal = jax.tree.map(lambda a, b: bool((a == b).all()), one, same)
    assert all(jax.tree.leaves(equal))
    assert not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, other)))


def test_bfloat16_base_keeps_adapters_and_head_in_float32(tiny_80, with_paper_head):
    model = load(tiny_80, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, TRAINABLE))} == {jnp.dtype("float32")}
    assert model.base.language_model.layers.mlp.up_proj.kernel.dtype == jnp.bfloat16
    _, batch = unequal_batch("right")
    full, half = predict(with_paper_head, batch), predict(model, batch)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.1)


def test_paper_head_needs_a_width_of_eight_heads(tiny_80, tmp_path):
    shutil.copytree(tiny_80, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["hidden_size"] = 36
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"divides by 8, and this checkpoint's is 36; use model.head=readout"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "holds no config.json"),
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ('{"model_type": "qwen2"}', 'describes a "qwen2" model, not a qwen2_audio one'),
    ],
)
def test_directories_that_are_no_qwen2_audio_are_refused(tmp_path, config, said):
    (tmp_path / "model.safetensors").touch()
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=said):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("text_config", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "is linear"),
        ("text_config", {"use_sliding_window": True}, "use_sliding_window is True; only False"),
        ("text_config", {"hidden_act": "gelu"}, "hidden_act is gelu; only silu"),
        ("audio_config", {"activation_function": "relu"}, "activation_function is relu; only gelu"),
        ("audio_config", {"scale_embedding": True}, "scale_embedding is True; only False"),
    ],
)  # fmt: skip
def test_a_model_that_computes_something_else_is_refused(tiny_80, tmp_path, part, change, said):
    shutil.copytree(tiny_80, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config[part] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "processor_config.json"]
)
def test_fingerprint_sees_what_the_tokens_depend_on(tmp_path, name):
    base = shutil.copytree(toy_runs.CHECKPOINT, tmp_path / "base")
    original, first_form = fingerprint(base), _first_form(base)
    assert is_base(original, base) and is_base(first_form, base) and original != first_form
    (base / name).write_text((base / name).read_text() + " ")
    assert not is_base(original, base)
    assert is_base(first_form, base), "older runs did not look at it"
    (base / name).unlink()
    assert not is_base(original, base)
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    assert not is_base(first_form, base)


def test_fingerprint_sees_a_change_in_the_middle_of_a_large_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    content = np.zeros(12 << 20, np.uint8)
    content.tofile(tmp_path / "model.safetensors")
    original = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == original
    content[7 << 20 : 8 << 20] = 1
    content.tofile(tmp_path / "model.safetensors")
    assert fingerprint(tmp_path) != original
    content[7 << 20 : 8 << 20] = 0
    content[-1] = 1
    content.tofile(tmp_path / "model.safetensors")
    assert fingerprint(tmp_path) != original


def test_fingerprint_reads_files_once_while_they_stay_as_they_are(tmp_path, monkeypatch):
    base = shutil.copytree(toy_runs.CHECKPOINT, tmp_path / "base")
    for file in base.iterdir():
        os.utime(file, (0, 0))
    original = fingerprint(base)
    monkeypatch.setattr(fingerprints.hashlib, "sha256", None)
    assert fingerprint(base) == original
    monkeypatch.undo()
    (base / "tokenizer.json").write_text((base / "tokenizer.json").read_text().replace("a", "b", 1))
    assert fingerprint(base) != original


def test_fingerprint_sees_weights_and_config(tiny_80, tmp_path):
    shutil.copytree(tiny_80, tmp_path, dirs_exist_ok=True)
    original = fingerprint(tiny_80)
    assert fingerprint(tmp_path) == original
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(tmp_path) != original
    shutil.copy(tiny_80 / "model.safetensors", weights)
    assert fingerprint(tmp_path) == original
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    assert fingerprint(tmp_path) != original
