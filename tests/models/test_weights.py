"""Weights out of and into Hugging Face's layout, and every kind of file that does not hold them."""

import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny_qwen2_audio import VOCABULARY, load_ours, load_torch, reference, save_tiny, unequal_batch

from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.errors import UserError
from aer_jax.models import weights
from aer_jax.models.weights import base_tensors


@pytest.fixture
def broken(tiny_80, tmp_path) -> Path:
    """A copy of a whole checkpoint, to be damaged."""
    return Path(shutil.copytree(tiny_80, tmp_path / "broken"))


def rewrite(path: Path, change) -> None:
    """Apply `change` to the tensors of a checkpoint."""
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def refused(path: Path) -> str:
    """What the user is told."""
    with pytest.raises(UserError) as error:
        load_ours(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_shards_and_one_file_hold_the_same(tmp_path, tiny_128):
    whole = load_ours(save_tiny(tmp_path / "whole", 128))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), nnx.state(whole), nnx.state(load_ours(tiny_128)))
    assert all(jax.tree.leaves(same))


def test_round_trip_gives_transformers_the_same_logits(tiny, tmp_path):
    """Ours -> files -> transformers: bit for bit, since nothing is computed on the way."""
    shutil.copy(tiny / "config.json", tmp_path)
    tensors = base_tensors(load_ours(tiny))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert {array.dtype for array in tensors.values()} == {np.dtype("float32")}
    clips, batch = unequal_batch("right", seconds=(0.4, 0.7))
    before, after = (reference(load_torch(path), clips, batch) for path in (tiny, tmp_path))
    np.testing.assert_array_equal(before.logits_btv, after.logits_btv)
    assert sorted(tensors) == sorted(Checkpoint(tiny).tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_point_types_are_read(tiny_80, tmp_path, dtype):
    load_torch(tiny_80).to(dtype).save_pretrained(tmp_path)
    ours, plain = load_ours(tmp_path), load_ours(tiny_80)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(ours))} == {jnp.dtype("float32")}
    close = jax.tree.map(
        lambda a, b: bool(jnp.allclose(a, b, rtol=2**-8, atol=1e-4)), nnx.state(ours), nnx.state(plain)
    )
    assert all(jax.tree.leaves(close))


def test_tensors_may_start_at_odd_bytes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [1, 5]}, "scalar": {
        "dtype": "F32", "shape": [], "data_offsets": [5, 9]}}).encode()  # fmt: skip
    header += b" " * (1 - len(header) % 2)
    content = b"?" + np.array([1.5, -2], jnp.bfloat16).tobytes() + np.float32(7).tobytes()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content)
    tensors = {name: tensor.read() for name, tensor in Checkpoint(tmp_path).tensors.items()}
    np.testing.assert_array_equal(tensors["x"].transpose(1, 0).astype(np.float32), [[1.5, -2]])
    assert tensors["scalar"].shape == () and tensors["scalar"] == 7


def with_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


MISFIT = b'{"x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 4]}}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: whole[:1000], "its header is cut short"),
        (lambda whole: whole[:4], "its header is cut short"),
        (lambda whole: whole[:-100], "bytes, and multi_modal_projector.linear.weight reaches to"),
        (lambda whole: b"", "it is empty"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1", "its header is cut short"),
        (lambda whole: with_header(b"12345"), "its header cannot be read"),
        (lambda whole: with_header(b"[]"), "its header cannot be read"),
        (lambda whole: with_header(b'{"x": {}}'), "its header cannot be read"),
        (lambda whole: with_header(MISFIT.replace(b"4]}", b"-4]}")), "the header's entry of x cannot be read"),
        (lambda whole: with_header(MISFIT.replace(b"[2, 2]", b'["2"]')), "the header's entry of x cannot be read"),
        (lambda whole: with_header(MISFIT) + b"1234", "x has 4 bytes, which do not make [2, 2]"),
    ],
    ids=[
        "header cut",
        "eight bytes cut",
        "data cut",
        "empty",
        "git-lfs",
        "number",
        "list",
        "no entry",
        "negative",
        "no number",
        "misfit",
    ],
)
def test_files_that_are_not_whole_are_refused(broken, content, said):
    file = broken / "model.safetensors"
    file.write_bytes(content(file.read_bytes()))
    message = refused(broken)
    assert "is not a whole safetensors file" in message and said in message and "copy it again" in message


def test_missing_shard_and_broken_index(tiny_128, tmp_path):
    path = Path(shutil.copytree(tiny_128, tmp_path / "broken"))
    shard = sorted(path.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"cannot read the weights {shard}: No such file or directory" in refused(path)
    (path / "model.safetensors.index.json").write_text("{}")
    assert "is not an index of safetensors files" in refused(path)


def test_every_tensor_that_does_not_fit_is_named_at_once(broken):
    def damage(tensors):
        del tensors["audio_tower.conv1.bias"], tensors["language_model.model.layers.1.self_attn.k_proj.bias"]
        tensors["multi_modal_projector.linear.weight"] = np.zeros((32, 48), np.float32)
        tensors["audio_tower.layers.2.fc1.weight"] = np.zeros((56, 31), np.float32)
        tensors["language_model.model.layers.3.self_attn.q_proj.weight"] = np.zeros((2, 2), np.float32)

    rewrite(broken, damage)
    message = refused(broken)
    for said in (
        "audio_tower.conv1.bias is missing",
        "language_model.model.layers.1.self_attn.k_proj.bias is missing",
        "multi_modal_projector.linear.weight is [32, 48], not [48, 32]",
        "audio_tower.layers.2.fc1.weight is [56, 31], not [56, 32]",
        "language_model.model.layers.3.self_attn.q_proj.weight has no place in the model",
    ):
        assert said in message
    assert message.count(";") == 4


def test_a_long_list_is_cut(broken):
    rewrite(broken, lambda tensors: [tensors.pop(name) for name in list(tensors) if "language_model" in name])
    assert re.search(r"is missing; and \d+ more\.$", refused(broken))


def test_the_output_layer_may_stay_unread_but_must_fit_where_it_is_asked_for(broken):
    rewrite(broken, lambda tensors: tensors.pop("language_model.lm_head.weight"))
    assert "language_model.lm_head.weight is missing" in refused(broken)
    rewrite(broken, lambda tensors: tensors.update({"language_model.lm_head.weight": np.zeros((VOCABULARY, 7), "f4")}))
    assert f"language_model.lm_head.weight is [{VOCABULARY}, 7], not [{VOCABULARY}, 48]" in refused(broken)


def test_quantised_weights_are_refused(broken):
    rewrite(broken, lambda tensors: tensors.update({"audio_tower.conv1.bias": np.zeros(32, np.int8)}))
    message = refused(broken)
    assert "audio_tower.conv1.bias is I8; only F32, F16, BF16, F64 weights are read" in message


def test_a_large_parameter_is_put_together_from_pieces(tiny, monkeypatch):
    """Whole, or layer by layer and in runs of rows: the same bits."""
    whole = nnx.state(load_ours(tiny))
    monkeypatch.setattr(weights, "PIECE", 1000)
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((a == b).all()), whole, nnx.state(load_ours(tiny)))
    assert all(jax.tree.leaves(same))
