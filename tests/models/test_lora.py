"""Adapters equal peft's, sit where the paper put them, and change nothing until they are trained."""

import copy
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from tiny_qwen2_audio import hidden_states, load_ours, load_torch, reference, relative_error, unequal_batch
from transformers import Qwen2AudioConfig

from aer_jax.config import LoraConfig, ModelConfig
from aer_jax.errors import UserError
from aer_jax.models.adapters import lora
from aer_jax.models.emotion_model import TRAINABLE, EmotionModel
from aer_jax.models.layers import Linear

TARGETS = LoraConfig().targets


def attach(model, targets=TARGETS, rank=4, alpha=12.0, dropout=0.2, seed=0):
    return lora.attach(model, targets, rank=rank, alpha=alpha, dropout=dropout, key=jax.random.key(seed))


@pytest.fixture
def adapted(tiny_80):
    """Our tiny model with fresh adapters."""
    model = load_ours(tiny_80)
    attach(model)
    return model


def test_parity_with_peft(tiny_80, adapted, parity):
    """The paper's own target list in peft, and the same random A and B in both."""
    paper = PeftConfig(r=4, lora_alpha=12, lora_dropout=0.2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    peft_model = get_peft_model(copy.deepcopy(load_torch(tiny_80)), paper).eval()
    torch.manual_seed(3)
    sites = set()
    for name, parameter in peft_model.named_parameters():
        if not (found := re.search(r"\.((?:audio_tower|language_model).*)\.lora_([AB])\.default\.weight", name)):
            continue
        with torch.no_grad():
            parameter.normal_(std=0.1)
        *path, layer, block, projection = found[1].replace(".layers.", ".layers|").replace("|", ".").split(".")
        node = adapted
        for part in (*path, block, projection):
            node = getattr(node, part)
        variable = node.lora.a if found[2] == "A" else node.lora.b
        variable[...] = variable[...].at[int(layer)].set(parameter.detach().numpy().T)
        sites.add(".".join([*path, "N", block, projection]))
    assert sites == {lora.torch_name(path) for path, m in nnx.iter_modules(adapted) if getattr(m, "lora", None)}

    clips, batch = unequal_batch("left")
    expected = reference(peft_model.base_model.model, clips, batch)
    where = np.asarray(batch.token_mask)
    hidden_bth = hidden_states(adapted, batch)
    parity("hidden states with adapters, against peft", relative_error(hidden_bth, expected.hidden_bth, where))
    plain = reference(load_torch(tiny_80), clips, batch)
    assert relative_error(plain.hidden_bth, expected.hidden_bth, where) > 0.1, "the adapters did nothing"


def test_default_targets_are_the_papers_modules(tiny_80):
    names = attach(load_ours(tiny_80))
    assert names == sorted(
        [f"audio_tower.layers.N.self_attn.{x}_proj" for x in "qkv"]
        + [f"language_model.layers.N.self_attn.{x}_proj" for x in "qkvo"]
    )


def test_new_adapters_change_nothing(tiny_80, adapted):
    _, batch = unequal_batch("right", seconds=(0.5, 0.9))
    np.testing.assert_array_equal(hidden_states(load_ours(tiny_80), batch), hidden_states(adapted, batch))


def test_initial_a_is_uniform_as_in_peft():
    """Kaiming-uniform with a = sqrt(5): U(-1/sqrt(d_in), 1/sqrt(d_in)), each stacked layer drawn anew."""
    adapter = lora.LoRA((3, 400, 7), rank=64, alpha=1, dropout=0, key=jax.random.key(0))
    a_lir = np.asarray(adapter.a[...])
    assert a_lir.shape == (3, 400, 64) and adapter.b.shape == (3, 64, 7)
    assert 0.999 / 20 < np.abs(a_lir).max() <= 1 / 20
    np.testing.assert_allclose(a_lir.std(axis=(1, 2)), 1 / 20 / 3**0.5, rtol=0.02)
    assert not np.allclose(a_lir[0], a_lir[1])


def test_dropout_needs_a_mask_and_acts_on_the_adapters_input_alone():
    linear = Linear(50, 50, bias=True, rngs=nnx.Rngs(0))
    base = copy.deepcopy(linear)
    linear.lora = lora.LoRA((50, 50), rank=50, alpha=100, dropout=0.25, key=jax.random.key(0))
    linear.lora.a[...] = linear.lora.b[...] = jnp.eye(50)
    x = jax.random.normal(jax.random.key(1), (8, 5, 50))
    np.testing.assert_allclose(linear(x), base(x) + 2 * x, atol=1e-5)

    def drawn(seed):
        masks = lora.dropout_masks({"it": linear}, jax.random.split(jax.random.key(seed), 1), [x.shape[:2]])
        return linear(x, masks["it"])

    dropped = np.asarray((drawn(2) - base(x)) / 2 / x)
    kept = np.isclose(dropped, 1 / 0.75, atol=1e-2)
    assert (kept | np.isclose(dropped, 0, atol=1e-2)).all()
    assert abs(kept.mean() - 0.75) < 0.04
    assert not np.allclose(drawn(2), drawn(3))


SENT = """
import jax, jax.numpy as jnp
from flax import nnx
from aer_jax.config import MeshConfig
from aer_jax.models.layers import Linear
from aer_jax.models.adapters.lora import LoRA, dropout_masks
from aer_jax.models.sharding import make_mesh
from jax.sharding import PartitionSpec as P

mesh = make_mesh(MeshConfig(2, 2, 2))
jax.set_mesh(mesh)
opens, closes = Linear(64, 64, bias=False, rngs=nnx.Rngs(0)), Linear(64, 64, bias=False, rngs=nnx.Rngs(0))
opens.lora, closes.lora = (LoRA((64, 64), 4, 1.0, 0.2, jax.random.key(0)) for _ in range(2))
layer = {"opens": opens, "closes": closes}

def kept(key, x, h):
    masks = dropout_masks(layer, jax.random.split(key, 1), [x.shape[:2]])
    return masks["opens"] * x, masks["closes"] * h

rows = ("data", "fsdp")
where = jax.NamedSharding(mesh, P()), jax.NamedSharding(mesh, P(rows)), jax.NamedSharding(mesh, P(rows, None, "tensor"))
like = jax.ShapeDtypeStruct((8, 12, 64), jnp.float32)
step = jax.jit(kept, in_shardings=where, out_shardings=where[1:])
print(step.lower(jax.random.key(0), like, like).compile().as_text())
"""


def test_devices_send_each_other_nothing_of_what_is_drawn():
    """The second input is divided along `tensor`, as where a block closes; the first is not."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    program = subprocess.run(
        [sys.executable, "-c", SENT], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "shift-right-logical" in program
    assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute", program)


def test_dropout_of_the_whole_model_is_drawn_by_the_key(adapted):
    """Through the whole model: a key changes the result, the same key gives the same result."""
    for _, module in nnx.iter_modules(adapted):
        if isinstance(module, lora.LoRA):
            module.b[...] = jnp.ones(module.b.shape) * 0.1
    _, batch = unequal_batch("right", seconds=(0.5, 0.9))
    plain, one, two = (hidden_states(adapted, batch, key) for key in (None, jax.random.key(1), jax.random.key(2)))
    assert not np.allclose(plain, one) and not np.allclose(one, two)
    np.testing.assert_array_equal(one, hidden_states(adapted, batch, jax.random.key(1)))


def test_published_sizes_give_the_papers_parameter_counts():
    config = Qwen2AudioConfig(text_config={"model_type": "qwen2", "vocab_size": 156032, "intermediate_size": 11008})
    settings = ModelConfig(head="paper", lora=LoraConfig())
    model = nnx.eval_shape(lambda: EmotionModel(config, settings, 4, rngs=nnx.Rngs(0)))

    def count(part, what) -> int:
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(part, what)))

    language_model, audio_tower = 8 * 8192 * 4 * 32, 8 * 2560 * 3 * 32
    assert count(model.base.language_model, nnx.LoRAParam) == language_model == 8_388_608
    assert count(model.base.audio_tower, nnx.LoRAParam) == audio_tower == 1_966_080
    assert count(model.emotion_head, ...) == pytest.approx(92.3e6, abs=0.05e6)
    assert count(model, TRAINABLE) == language_model + audio_tower + count(model.emotion_head, ...)
    assert count(model.base, ...) == pytest.approx(7.76e9, rel=0.01)  # published: 8.4 B less the output layer's 0.64 B


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (
            ["language_model.*", "encoder.*"],
            '"encoder.*" matches no linear layer; the layers are audio_tower.layers.N.fc1',
        ),
        (["q_proj"], '"q_proj" matches no linear layer'),
        (["(q"], '"(q" is not a regular expression'),
    ],
)
def test_patterns_that_match_nothing_are_refused(tiny_80, targets, said):
    with pytest.raises(UserError, match=re.escape(said)):
        attach(load_ours(tiny_80), targets)
