"""Checkpoints that do not fit themselves or are damaged: each a small change to one, and what refuses it."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import aer_jax
from aer_jax.base.chat import Chat
from aer_jax.base.config import read_config
from aer_jax.base.safetensors_files import Checkpoint, file_name
from aer_jax.errors import UserError
from aer_jax.models import weights
from aer_jax.models.qwen2_audio import Qwen2Audio
from aer_jax.models.weights import check_fit, load_base

TOY = Path(aer_jax.__file__).parent / "demo" / "checkpoint"
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.fixture
def base(tmp_path) -> Path:
    """A copy of a whole checkpoint, to be changed."""
    return Path(shutil.copytree(TOY, tmp_path / "base"))


def fit(path: Path) -> Checkpoint:
    """All that compares a checkpoint with itself before its weights are read."""
    Chat(path)
    config, checkpoint = read_config(path), Checkpoint(path)
    check_fit(nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0))), checkpoint)
    return checkpoint


def refused(path: Path, *said: str, opened=fit) -> None:
    with pytest.raises(UserError) as error:
        opened(path)
    message = str(error.value)
    assert all(part in message for part in (str(path), *said)), message
    assert "\n" not in message and len(message) < 700 and message.endswith((".", "?"))


def change(file: Path, *keys: str, **values) -> None:
    """Update the object below `keys` of a JSON file; a value of ... removes its key."""
    content = json.loads(file.read_text())
    fields = content
    for key in keys:
        fields = fields.setdefault(key, {})
    fields.update(values)
    for name in [name for name, value in values.items() if value is ...]:
        del fields[name]
    file.write_text(json.dumps(content))


def load(path: Path) -> Qwen2Audio:
    config = read_config(path)
    model = nnx.eval_shape(lambda: Qwen2Audio(config, output_layer=True, rngs=nnx.Rngs(0)))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    load_base(model, Checkpoint(path), lambda path, shape: here, jnp.float32)
    return model


def same(one: Qwen2Audio, other: Qwen2Audio) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), nnx.state(one), nnx.state(other))))


def test_the_checkpoint_itself_fits():
    fit(TOY)


CONFIGS = [
    ("", {"audio_token_index": 7}, ["audio_token_index is 7", "<|AUDIO|> is token 3"]),
    ("", {"audio_token_index": 512}, ["audio_token_index is 512", "vocab_size 512"]),
    ("", {"audio_token_index": -1}, ["audio_token_index is -1"]),
    ("", {"audio_token_index": "3"}, ["audio_token_index"]),
    ("", {"audio_token_index": ...}, ["audio_token_index is 151646"]),
    ("", {"text_config": [1]}, ["text_config is [1], not an object"]),
    ("text_config", {"vocab_size": 400}, ["of the tokenizer, but text_config.vocab_size in config.json is 400"]),
    ("text_config", {"vocab_size": 2}, ["vocab_size 2"]),
    ("text_config", {"vocab_size": 10**30}, ["text_config.vocab_size is 1000000"]),
    ("text_config", {"hidden_size": "64"}, ["text_config.hidden_size is 64, not an integer"]),
    ("text_config", {"hidden_size": True}, ["text_config.hidden_size is True, not an integer"]),
    ("text_config", {"hidden_size": 66}, ["hidden_size is 66, which", "num_attention_heads, 4, does not divide"]),
    ("text_config", {"num_attention_heads": 3, "num_key_value_heads": 2}, ["num_key_value_heads, 2, does not divide"]),
    ("text_config", {"head_dim": 15}, ["15"]),
    ("text_config", {"num_hidden_layers": 10**9}, ["num_hidden_layers is 1000000000"]),
    ("text_config", {"max_position_embeddings": 0}, ["max_position_embeddings is 0"]),
    ("text_config", {"eos_token_id": 512}, ["text_config.eos_token_id is 512"]),
    ("text_config", {"eos_token_id": [2, 600]}, ["text_config.eos_token_id is 600"]),
    ("text_config", {"pad_token_id": 9999}, ["text_config.pad_token_id is 9999"]),
    ("text_config", {"rms_norm_eps": 0.0}, ["rms_norm_eps is 0"]),
    ("text_config", {"rms_norm_eps": float("nan")}, ["rms_norm_eps is nan"]),
    ("text_config", {"rms_norm_eps": "1e-6"}, ["rms_norm_eps"]),
    ("text_config", {"rope_theta": 77.0}, ["rope_theta is 77.0", "10000.0"]),
    ("text_config", {"rope_parameters": {"rope_theta": "x"}}, ["rope_theta is x"]),
    ("text_config", {"rope_parameters": {"rope_theta": -1.0}}, ["rope_theta is -1.0"]),
    ("text_config", {"rope_parameters": 5}, []),
    ("text_config", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, ["rope_type is yarn"]),
    ("text_config", {"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
    ("text_config", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, ["sliding_attention"]),
    ("text_config", {"model_type": "llama"}, ['text_config.model_type is llama; only qwen2']),
    ("text_config", {"model_type": "nothing"}, []),
    ("audio_config", {"model_type": "whisper"}, ["audio_config.model_type is whisper"]),
    ("audio_config", {"max_source_positions": 1499}, ["max_source_positions is 1499", "1500"]),
    ("audio_config", {"num_mel_bins": 128}, ["processor_config.json is 80", "num_mel_bins in config.json is 128"]),
    ("audio_config", {"encoder_attention_heads": 7}, ["d_model is 64", "encoder_attention_heads, 7,"]),
    ("", {"dtype": 1e308}, ["does not describe a Qwen2-Audio model"]),
    ("audio_config", {"encoder_layers": 2.5}, ["encoder_layers is 2.5"]),
]  # fmt: skip


@pytest.mark.parametrize(("section", "values", "said"), CONFIGS)
def test_config(base, section, values, said):
    change(base / "config.json", *([section] if section else []), **values)
    refused(base, *said)


def test_more_positions_than_30_s_take_are_no_fault(base):
    """transformers' own rule: a longer table of positions is read from its beginning."""
    change(base / "config.json", "audio_config", max_source_positions=1600)
    tensors = load_file(base / "model.safetensors")
    name = "audio_tower.embed_positions.weight"
    tensors[name] = np.pad(tensors[name], ((0, 100), (0, 0)))
    save_file(tensors, base / "model.safetensors")
    fit(base)


def test_a_token_of_minus_one_is_none(base):
    change(base / "config.json", "text_config", bos_token_id=-1, pad_token_id=-1)
    fit(base)


ONE_FIELD = ['{"a": NaN}', '{"feature_extractor": 3}']


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [DEEP, "[]", '"x"', "{", "\x00", "", *ONE_FIELD])
def test_files_of_something_else(base, name, content):
    (base / name).write_text(content)
    if name == "tokenizer_config.json" and content in ONE_FIELD:
        fit(base)  # an object without any of its fields, of which none is needed
    else:
        refused(base)


FEATURES = [
    ("feature_size", 128), ("feature_size", "80"), ("sampling_rate", 8000), ("hop_length", 320), ("n_fft", 10**9),
    ("chunk_length", 60), ("dither", 0.1), ("padding_value", 1.0), ("feature_size", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), FEATURES)
def test_feature_extractors_that_hear_something_else(base, name, value):
    change(base / "processor_config.json", "feature_extractor", **{name: value})
    refused(base, f"{name} in its processor_config.json is {value!r}")


def test_the_older_file_of_a_feature_extractor_is_compared_too(base):
    about = json.loads((base / "processor_config.json").read_text())
    (base / "processor_config.json").unlink()
    (base / "preprocessor_config.json").write_text(json.dumps(about["feature_extractor"] | {"hop_length": 200}))
    refused(base, "hop_length in its preprocessor_config.json is 200, and Qwen2-Audio's is 160")


def test_an_extractor_of_another_kind(base):
    change(base / "processor_config.json", "feature_extractor", feature_extractor_type="Wav2Vec2FeatureExtractor")
    refused(base)


def test_tokenizers_that_do_not_have_what_the_template_writes(base):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (base / file).read_text()
        (base / file).write_text(text.replace("<|audio_eos|>", "<|audio_end|>"))
    refused(base, "the chat template of", "writes <|audio_eos|>, which is no token of its tokenizer")


@pytest.mark.parametrize("value", ["x", "64", [], {}])
def test_a_tokenizer_with_a_length_of_another_type(base, value):
    change(base / "tokenizer_config.json", model_max_length=value)
    refused(base, "model_max_length")


def test_a_tokenizer_that_splits_the_audio_token(base):
    """It has the token, but not as one that text is cut at."""
    content = json.loads((base / "tokenizer.json").read_text())
    audio = next(token for token in content["added_tokens"] if token["content"] == "<|AUDIO|>")
    content["added_tokens"].remove(audio)
    (base / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["extra_special_tokens"].remove("<|AUDIO|>")
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    refused(base, "<|AUDIO|>")


TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
PARTS = "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
AUDIO = "{% if p['type'] == 'audio' %}<|AUDIO|>{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
END = "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
LOOP = "{% for i in range(99999) %}"


def test_a_template_of_its_own_is_taken(base):
    (base / "chat_template.jinja").write_text(TURNS + PARTS + AUDIO + END)
    assert Chat(base).render([{"role": "user", "content": "Hi"}]).startswith("<|im_start|>user\nHi<|im_end|>")


TEMPLATES = [
    ("Hi", "leaves out the system line"),
    (TURNS + PARTS + AUDIO.replace("<|AUDIO|>", "") + END, "writes <|AUDIO|> 0 times for one recording"),
    (TURNS + PARTS + AUDIO.replace("<|AUDIO|>", "<|AUDIO|><|AUDIO|>") + END, "writes <|AUDIO|> 2 times"),
    (TURNS + PARTS + AUDIO.replace("{{ p['text'] }}", "") + END, "leaves out the text"),
    (TURNS + PARTS.replace("{{ m['content'] }}", "") + AUDIO + END, "leaves out the system line"),
    ("{{ raise_exception('System role not supported') }}", "TemplateError: System role not supported"),
    ("{% for m in messages %}", "TemplateSyntaxError"),
    ("{{ messages[9]['content'] }}", "UndefinedError"),
    ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ("{% include '/etc/passwd' %}", "cannot render a conversation"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ("{{ 'x' * 10**6 }}", "it writes 1,000,000 characters"),
    ("{{ 'x' * 10**11 }}", "cannot render a conversation"),
    ("{{ 10**(10**9) }}", "it takes more than"),
    (LOOP + LOOP + LOOP + "{% endfor %}" * 3, "it takes more than"),
]


@pytest.mark.parametrize(("template", "said"), TEMPLATES)
def test_templates_that_cannot_be_used(base, template, said):
    (base / "chat_template.jinja").write_text(template)
    refused(base, said, opened=Chat)


def rename(base: Path, new) -> None:
    tensors = load_file(base / "model.safetensors")
    save_file({new(name): tensor for name, tensor in tensors.items()}, base / "model.safetensors")


def in_memory(name: str) -> str:
    """As transformers 5 names it in memory."""
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return f"model.{name}".replace("model.language_model.model.", "model.language_model.")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "base_model.model.", "module._orig_mod."])
@pytest.mark.parametrize("new", [in_memory, lambda name: name], ids=["in memory", "in files"])
def test_every_layout_of_names_is_read(base, prefix, new):
    whole = load(TOY)
    rename(base, lambda name: prefix + new(name))
    assert same(load(base), whole)


def test_the_names_are_those_of_transformers_in_memory():
    from transformers import Qwen2AudioForConditionalGeneration

    model = Qwen2AudioForConditionalGeneration.from_pretrained(TOY)
    assert {file_name(name) for name in model.state_dict()} == set(load_file(TOY / "model.safetensors"))


def two_shards(base: Path) -> list[str]:
    """The weights in two shards; returns their tensors' names."""
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {f"model-0000{n}-of-00002.safetensors": names[n - 1 :: 2] for n in (1, 2)}
    for shard, own in shards.items():
        save_file({name: tensors[name] for name in own}, base / shard)
    write_index(base, {name: shard for shard, own in shards.items() for name in own})
    return names


def write_index(base: Path, weight_map) -> None:
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_read_with_and_without_their_index(base):
    two_shards(base)
    fit(base)
    (base / "model.safetensors.index.json").unlink()
    fit(base)


INDEXES = [
    ([], "is not an index"), ({}, "is not an index"), ("x", "is not an index"), (None, "is not an index"),
    ({"a": 5}, "names the shard '5'"), ({"a": "../model.safetensors"}, "names the shard '../model.safetensors'"),
    ({"a": "/etc/passwd"}, "names the shard '/etc/passwd'"), ({"a": "model.bin"}, "names the shard 'model.bin'"),
    ({"a": ""}, "names the shard ''"), ({"a": "gone.safetensors"}, "cannot read the weights"),
]  # fmt: skip


@pytest.mark.parametrize(("weight_map", "said"), INDEXES)
def test_indexes_of_something_else(base, weight_map, said):
    (base / "model.safetensors").rename(base / "other.safetensors")
    write_index(base, weight_map)
    refused(base, said)
    (base / "model.safetensors.index.json").write_text(DEEP)
    refused(base, "nested too deeply")


def test_an_index_and_other_weights_beside_it(base):
    shutil.copy(base / "model.safetensors", base / "single")
    names = two_shards(base)
    shutil.copy(base / "single", base / "model.safetensors")
    refused(base, "model.safetensors is none of the files that", "remove one of the two")
    (base / "model.safetensors.index.json").unlink()
    refused(base, "holds", "twice, in model-00001-of-00002.safetensors and in model.safetensors")
    write_index(base, dict.fromkeys(names, "model.safetensors"))
    fit(base)
    write_index(base, dict.fromkeys(names[1:], "model.safetensors"))
    refused(base, f"does not place {names[0]} in model.safetensors")
    write_index(base, dict.fromkeys([*names, "more"], "model.safetensors"))
    refused(base, "places more in model.safetensors")


def test_one_tensor_in_two_layouts(base):
    tensors = load_file(base / "model.safetensors")
    tensors["lm_head.weight"] = tensors["language_model.lm_head.weight"] + 1
    save_file(tensors, base / "model.safetensors")
    refused(base, "holds language_model.lm_head.weight twice")


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HEADERS = [
    ([], "its header cannot be read"), (5, "its header cannot be read"), ({"x": []}, "its header cannot be read"),
    ({"x": 5}, "its header cannot be read"), ({"x": entry(dtype=["F32"])}, "entry of x cannot be read"),
    ({"x": entry(dtype="Q4")}, "x is Q4"), ({"x": entry(dtype=None)}, "entry of x cannot be read"),
    ({"x": entry(shape=5)}, "entry of x cannot be read"), ({"x": entry(shape={"a": 1})}, "entry of x cannot be read"),
    ({"x": entry(shape=[True])}, "entry of x cannot be read"), ({"x": entry(shape=[1.0])}, "entry of x cannot be read"),
    ({"x": entry(shape=[10**40])}, "which do not make"), ({"x": entry(offsets=[0])}, "entry of x cannot be read"),
    ({"x": entry(offsets="04")}, "entry of x cannot be read"), ({"x": entry(offsets=[4, 0])}, "do not make"),
    ({"x": entry(offsets=[0, 10**25])}, "reaches to"), ({"x": entry(offsets=[-4, 0])}, "entry of x cannot be read"),
    ({"x": entry(), "y": entry()}, "begins within another tensor"),
    ({"x": entry(shape=[2], offsets=[0, 8]), "y": entry(offsets=[4, 8])}, "begins within another tensor"),
    ({"x": entry()}, "its tensors end at"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "said"), HEADERS)
def test_safetensors_headers_of_something_else(base, header, said):
    text = json.dumps(header).encode()
    (base / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    refused(base, said)


def test_a_header_that_is_nested_too_deeply(base):
    (base / "model.safetensors").write_bytes(len(DEEP).to_bytes(8, "little") + DEEP.encode())
    refused(base, "its header cannot be read")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 1e300])
@pytest.mark.parametrize("piece", [weights.PIECE, 1000], ids=["whole", "in pieces"])
def test_weights_that_are_not_finite_are_the_bases(base, monkeypatch, dtype, value, piece):
    monkeypatch.setattr(weights, "PIECE", piece)
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    tensors = load_file(base / "model.safetensors")
    tensors[name] = tensors[name].astype(dtype)
    with np.errstate(over="ignore"):
        tensors[name][-1, 3] = value
    save_file(tensors, base / "model.safetensors")
    refused(base, f"{name} holds numbers that are NaN, infinite", "the base's weights", opened=load)
