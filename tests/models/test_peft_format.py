"""Adapters that peft has saved, in either layout of names and with either head, and all that does not fit."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from tiny_qwen2_audio import load_torch, reference, unequal_batch
from torch import nn
from torch.nn.functional import gelu

from aer_jax.base.fingerprint import fingerprint
from aer_jax.config import LoraConfig, MeshConfig, ModelConfig, load_config
from aer_jax.errors import UserError
from aer_jax.models.adapters.peft_format import LEARNED, adapted_layers, adapter_config, adapter_tensors, weight_updates
from aer_jax.models.adapters.peft_import import read_adapter
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.emotion_model import load_model
from aer_jax.models.sharding import make_mesh

H, CLASSES, RANK, ALPHA = 48, ("angry", "happy", "neutral", "sad"), 4, 8.0


class RecipeHead(nn.Module):
    """The paper's head in PyTorch, its modules named as ours."""

    def __init__(self, classes: int = len(CLASSES), attention: bool = True):
        super().__init__()
        self.attention = nn.MultiheadAttention(H, 8, batch_first=True) if attention else nn.Identity()
        self.norm1, self.linear1 = nn.LayerNorm(H), nn.Linear(H, H)
        self.norm2, self.linear2 = nn.LayerNorm(H), nn.Linear(H, H // 2)
        self.norm3, self.linear3 = nn.LayerNorm(H // 2), nn.Linear(H // 2, classes)

    def forward(self, hidden_bth, mask_bt):
        x_bh = self.attention(hidden_bth, hidden_bth, hidden_bth, key_padding_mask=~mask_bt)[0][:, 0]
        x_bh = x_bh + gelu(self.linear1(self.norm1(x_bh)))
        return self.linear3(self.norm3(gelu(self.linear2(self.norm2(x_bh)))))


def recipe(tiny: Path, folder: Path, head: nn.Module | None):
    """LoRA on every q, k, v, o_proj and a head, saved by peft; none of it zero."""
    torch.manual_seed(1)
    model = load_torch(tiny)
    model.emotion_head = head
    lora = PeftLoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.2,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        modules_to_save=["emotion_head"] if head else None,
    )
    model = get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.get_base_model()


@pytest.fixture(scope="module")
def saved(tiny_80, tmp_path_factory):
    """The recipe's adapter directory and the torch model that it was saved from."""
    folder = tmp_path_factory.mktemp("recipe")
    return folder, recipe(tiny_80, folder, RecipeHead())


@pytest.fixture
def adapter(saved, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(saved[0], tmp_path / "adapter"))


def settings(tiny: Path, adapter: Path, *, head: str = "paper", rank=RANK, alpha=ALPHA, **lora) -> ModelConfig:
    lora = LoraConfig(rank=rank, alpha=alpha, **lora)
    return ModelConfig(checkpoint=str(tiny), adapter=str(adapter), head=head, lora=lora)


def loaded(config: ModelConfig):
    """A model that starts from the adapter."""
    start = read_adapter(config, CLASSES)
    model = load_model(config, CLASSES, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    start.update(model)
    return model, start


def rewrite(folder: Path, change) -> None:
    """Replace the adapter's tensors by `change` of them."""
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def older(name: str) -> str:
    """The same tensor's name under transformers 4."""
    name = name.replace(".model.model.language_model.", ".model.language_model.model.")
    return name.replace(".model.model.audio_tower.", ".model.audio_tower.")


def test_parity_with_the_papers_recipe_in_both_layouts(saved, adapter, tiny_80, parity):
    """The head by its names; adapters by either layout."""
    clips, batch = unequal_batch("right", seconds=(0.5, 1.2))
    theirs_model = saved[1]
    hidden_bth = torch.from_numpy(reference(theirs_model, clips, batch).hidden_bth)
    with torch.no_grad():
        logits_bk = theirs_model.emotion_head(hidden_bth, torch.from_numpy(np.array(batch.token_mask)))
        theirs = torch.softmax(logits_bk, -1).numpy()
    model, start = loaded(settings(tiny_80, adapter))
    assert start.has_head and "classes taken to be angry, happy, neutral, sad in this order" in start.note
    ours = np.asarray(jax.nn.softmax(nnx.jit(lambda model, batch: model(batch))(model, batch)))
    parity("predictions from an adapter of the paper's recipe", float(np.abs(ours - theirs).max()), kind="absolute")

    names = set(load_file(adapter / "adapter_model.safetensors"))
    rewrite(adapter, lambda tensors: {older(name): tensor for name, tensor in tensors.items()})
    assert not names & {name for name in load_file(adapter / "adapter_model.safetensors") if "lora" in name}
    again = read_adapter(settings(tiny_80, adapter), CLASSES)
    assert again.values.keys() == start.values.keys()
    assert all(np.array_equal(again.values[path], start.values[path]) for path in start.values)


@pytest.mark.parametrize("head", ["paper", "readout"])
def test_out_and_in_again_is_the_same(tiny_80, tmp_path, head):
    config = settings(tiny_80, tmp_path, head=head)
    model = load_model(config, CLASSES, make_mesh(MeshConfig(), jax.devices()[:1]), seed=3)
    for i, (_, variable) in enumerate(nnx.to_flat_state(nnx.state(model, LEARNED))):
        variable.set_value(jax.random.normal(jax.random.key(i), variable.shape))
    save_file(adapter_tensors(model), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter_config(model, config)))
    again, start = loaded(config)
    assert start.has_head and start.values.keys() == dict(nnx.to_flat_state(nnx.state(model, LEARNED))).keys()
    same = jax.tree.map(lambda a, b: bool((a == b).all()), nnx.state(model, LEARNED), nnx.state(again, LEARNED))
    assert all(jax.tree.leaves(same))
    assert len(jax.tree.leaves(nnx.state(again, HeadStatistics))) == (2 if head == "readout" else 0)


def test_peft_names_the_same_tensors_as_we_do(saved, tiny_80):
    """Every adapter name that peft wrote is ours, letter by letter."""
    config = settings(tiny_80, saved[0])
    model, _ = loaded(config)
    theirs = {name: t for name, t in load_file(saved[0] / "adapter_model.safetensors").items() if "lora" in name}
    ours = {name: tensor for name, tensor in adapter_tensors(model).items() if "lora" in name}
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name], ours[name]) and ours[name].flags.c_contiguous for name in ours)
    pattern = adapter_config(model, config)["target_modules"]
    modules = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in theirs}
    assert all(re.fullmatch(pattern, module) for module in modules)
    assert not re.fullmatch(pattern, "model.audio_tower.layers.0.self_attn.out_proj")


def test_a_head_that_does_not_fit_the_run_starts_fresh_and_says_so(adapter, tiny_80, tmp_path):
    start = read_adapter(settings(tiny_80, adapter, head="readout"), CLASSES)
    assert not start.has_head and 'because its head is of the kind "paper", model.head is "readout"' in start.note
    assert {path[0] for path in start.values} == {"base"}
    start = read_adapter(settings(tiny_80, adapter), CLASSES[:3])
    assert not start.has_head and "because its head has 4 classes, this run 3" in start.note
    (adapter / "emotion_head.json").write_text(json.dumps({"classes": CLASSES[::-1]}))
    start = read_adapter(settings(tiny_80, adapter), CLASSES)
    assert not start.has_head and "its head predicts sad, neutral, happy, angry, this run angry, happy" in start.note
    (adapter / "emotion_head.json").write_text(json.dumps({"classes": 5}))
    with pytest.raises(UserError, match="classes is 5, not a list of names"):
        read_adapter(settings(tiny_80, adapter), CLASSES)
    (adapter / "emotion_head.json").write_text(json.dumps({"classes": CLASSES}))
    assert read_adapter(settings(tiny_80, adapter), CLASSES).note.endswith("adapters and head taken")
    recipe(tiny_80, tmp_path / "bare", None)
    assert "the adapter has none" in read_adapter(settings(tiny_80, tmp_path / "bare"), CLASSES).note


def refused(config: ModelConfig, monkeypatch, *said: str) -> None:
    """One sentence, before any array is put on a device."""
    with monkeypatch.context() as patch:
        patch.setattr(jax, "device_put", lambda *args: pytest.fail("device memory was spent"))
        with pytest.raises(UserError) as error:
            read_adapter(config, CLASSES)
    assert all(part in str(error.value) for part in said), error.value
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def change_config(folder: Path, **values) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_rank_and_alpha_must_agree(adapter, tiny_80, monkeypatch):
    refused(settings(tiny_80, adapter, rank=8), monkeypatch, "rank 4, not model.lora.rank 8; set model.lora.rank=4")
    refused(settings(tiny_80, adapter, alpha=16.0), monkeypatch, "alpha 8.0, not model.lora.alpha 16")
    both = settings(tiny_80, adapter, rank=2, alpha=2.0)
    refused(both, monkeypatch, "rank 4, not", "alpha 8.0, not", "set model.lora.rank=4 model.lora.alpha=8.0")
    change_config(adapter, r=8)
    refused(settings(tiny_80, adapter, rank=8), monkeypatch, "lora_A is [4, ", "not [8, ")


def test_targets_must_agree(adapter, tiny_80, monkeypatch):
    text, audio = LoraConfig().targets
    refused(
        settings(tiny_80, adapter, targets=(text,)), monkeypatch,
        "model.lora.targets differ", "it adapts audio_tower.layers.N.self_attn.k_proj", "which they leave out",
    )  # fmt: skip
    refused(
        settings(tiny_80, adapter, targets=(text, audio, r"multi_modal_projector\.linear")), monkeypatch,
        "they ask for multi_modal_projector.linear, which it does not adapt",
    )  # fmt: skip


def test_targets_that_fit_an_all_linear_adapter_are_printed(tiny_80, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(load_torch(tiny_80), PeftLoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"))
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError) as error:
        read_adapter(settings(tiny_80, tmp_path), CLASSES)
    printed = re.search(r'"model\.lora\.targets=(\[.*\])"', str(error.value))
    assert printed and len(str(error.value)) < 900
    targets = load_config(None, [f"model.lora.targets={printed[1]}"]).model.lora.targets
    start = read_adapter(settings(tiny_80, tmp_path, targets=targets), CLASSES)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(value.size for value in start.values.values()) == sum(tensor.size for tensor in tensors.values())
    assert any("multi_modal_projector" in name for name in tensors)


WRAPPED = [
    lambda name: name.removeprefix("base_model.model."),
    lambda name: name.removeprefix("base_model."),
    lambda name: f"module.{name}",
    lambda name: f"module.{name.removeprefix('base_model.model.')}",
    lambda name: f"_orig_mod.{name.removeprefix('base_model.model.')}",
    lambda name: name.replace("language_model.", "language_model._orig_mod."),
    lambda name: name.replace("base_model.model.", "base_model.model.model."),
    lambda name: name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
    lambda name: name.replace("emotion_head.", "emotion_head.modules_to_save.default."),
]


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_whatever_was_wrapped_around_the_model(saved, adapter, tiny_80, wrapped):
    rewrite(adapter, lambda tensors: {wrapped(name): tensor for name, tensor in tensors.items()})
    whole, same = (read_adapter(settings(tiny_80, folder), CLASSES) for folder in (saved[0], adapter))
    assert same.has_head and whole.values.keys() == same.values.keys()
    assert all(np.array_equal(same.values[path], whole.values[path]) for path in same.values)


def test_one_layer_under_two_names_is_refused(adapter, tiny_80, monkeypatch):
    rewrite(adapter, lambda tensors: tensors | {f"module.{name}": tensor + 1 for name, tensor in tensors.items()})
    refused(settings(tiny_80, adapter), monkeypatch, "holds two tensors for")


@pytest.mark.parametrize("alpha", [ALPHA, ALPHA * RANK**0.5], ids=["its alpha", "its scale"])
def test_rslora_is_as_exact_as_its_scale(tiny_80, tmp_path, alpha):
    """What peft adds to each weight is what ours adds, and what an export of ours adds in peft."""
    torch.manual_seed(0)
    kinds = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    theirs = get_peft_model(load_torch(tiny_80), PeftLoraConfig(**kinds, use_rslora=True))
    deltas = {}
    for name, module in theirs.named_modules():
        if hasattr(module, "lora_B") and not isinstance(module, nn.ModuleDict):
            torch.nn.init.normal_(module.lora_B["default"].weight)
            deltas[name.removeprefix("base_model.model.")] = module.get_delta_weight("default").detach().numpy()
    theirs.save_pretrained(tmp_path / "theirs")

    config = settings(tiny_80, tmp_path / "theirs", alpha=alpha)
    model, _ = loaded(config)
    updates = weight_updates(model)
    assert len(updates) == len(deltas) > 0
    for layer in adapted_layers(model):
        b, a = updates[layer.weight]
        np.testing.assert_allclose(b @ a, deltas[layer.name], rtol=1e-5, atol=1e-6)

    (tmp_path / "ours").mkdir()
    tensors = {name: tensor for name, tensor in adapter_tensors(model).items() if "lora" in name}
    save_file(tensors, tmp_path / "ours" / "adapter_model.safetensors")
    about = adapter_config(model, config) | {"modules_to_save": None}
    (tmp_path / "ours" / "adapter_config.json").write_text(json.dumps(about))
    again = PeftModel.from_pretrained(load_torch(tiny_80), tmp_path / "ours")
    for name, module in again.named_modules():
        if hasattr(module, "lora_B") and not isinstance(module, nn.ModuleDict):
            delta = module.get_delta_weight("default").detach().numpy()
            np.testing.assert_allclose(delta, deltas[name.removeprefix("base_model.model.")], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"use_rslora": True, "r": "4"}, "rank 4, not"),
        ({"lora_alpha": float("nan")}, "alpha nan, not"),
        ({"peft_type": ["LORA"]}, "only LORA ones are read"),
        ({"peft_type": "IA3"}, "is a IA3 adapter; only LORA ones are read"),
        ({"use_dora": True}, "sets use_dora; only plain LoRA is read"),
        ({"use_rslora": True, "alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"bias": "all"}, "sets bias"),
        ({"init_lora_weights": "pissa_niter_4"}, "sets init_lora_weights"),
        ({"r": None}, "rank None, not"),
    ],
)
def test_other_kinds_of_adapters_are_refused(adapter, tiny_80, monkeypatch, values, said):
    change_config(adapter, **values)
    refused(settings(tiny_80, adapter), monkeypatch, said)


def test_another_base_is_refused(adapter, tiny_80, monkeypatch):
    config = settings(tiny_80, adapter)
    name = "base_model.model.model.language_model.layers.1.self_attn.k_proj.lora_B.weight"
    whole = load_file(adapter / "adapter_model.safetensors")
    rewrite(adapter, lambda tensors: tensors | {name: np.zeros((24, RANK), np.float32)})
    refused(
        config, monkeypatch, "layers.1.self_attn.k_proj.lora_B is [24, 4], not [16, 4]; it was trained on another base"
    )
    rewrite(adapter, lambda tensors: whole | {name.replace(".1.", ".7."): whole[name]})
    refused(config, monkeypatch, "it has model.language_model.layers.7.self_attn.k_proj.lora_B.weight", "another base")
    rewrite(adapter, lambda tensors: {key: tensor for key, tensor in whole.items() if key != name})
    refused(config, monkeypatch, "it lacks model.language_model.layers.1.self_attn.k_proj.lora_B", "is not whole")
    rewrite(adapter, lambda tensors: whole)
    about = {"base": "elsewhere", "base_fingerprint": "0" * 64}
    (adapter / "emotion_head.json").write_text(json.dumps(about))
    refused(config, monkeypatch, "was trained on another base (elsewhere)")
    (adapter / "emotion_head.json").write_text(json.dumps(about | {"base_fingerprint": fingerprint(tiny_80)}))
    read_adapter(config, CLASSES)


def test_broken_files_are_refused(adapter, tiny_80, monkeypatch):
    config, file = settings(tiny_80, adapter), adapter / "adapter_model.safetensors"
    content = file.read_bytes()
    for some in (content[:-100], content[:500], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(some)
        refused(config, monkeypatch, f"{file} is not a whole safetensors file", "copy it again")
    file.write_bytes(content)
    some = next(name for name in load_file(file) if "lora_A" in name)
    rewrite(adapter, lambda tensors: tensors | {some: np.full_like(tensors[some], np.nan)})
    refused(config, monkeypatch, f"{some.removeprefix('base_model.model.')}", "is not finite")
    file.unlink()
    refused(config, monkeypatch, "holds no adapter_model.safetensors")
    (adapter / "adapter_model.bin").write_bytes(b"")
    refused(config, monkeypatch, "adapter_model.bin is pickled and is not read", "safe_serialization=True")
    for some in ("{", "[]", '{"a":' * 100_000):
        (adapter / "adapter_config.json").write_text(some)
        refused(config, monkeypatch, "adapter_config.json is n", "copy the adapter again")
    (adapter / "adapter_config.json").write_text("[]")
    refused(config, monkeypatch, "is not a JSON object")
    (adapter / "adapter_config.json").unlink()
    refused(config, monkeypatch, "is not a PEFT adapter directory: cannot read adapter_config.json")
    refused(settings(tiny_80, adapter / "nowhere"), monkeypatch, "nowhere is not a PEFT adapter directory")


class Renamed(RecipeHead):
    """The same tensors under other names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = self.linear1, self.linear2
        del self.linear1, self.linear2


class Plain(nn.Module):
    """No head of ours."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(H, len(CLASSES))

    def forward(self, x):
        return gelu(self.linear(x))


@pytest.mark.parametrize("head", [Renamed, Plain])
@pytest.mark.parametrize("kind", ["paper", "readout"])
def test_heads_of_other_names_are_refused(tiny_80, tmp_path, monkeypatch, head, kind):
    recipe(tiny_80, tmp_path, head())
    config = settings(tiny_80, tmp_path, head=kind)
    if head is Renamed and kind == "readout":
        assert not read_adapter(config, CLASSES).has_head
    else:
        refused(config, monkeypatch, "are neither adapters nor the tensors of a known head", "save it as emotion_head")
