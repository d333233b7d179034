"""peft loads the exported adapter, transformers the merged checkpoint, and both predict what we predict.

Tests that take the fixture `torch_model` are skipped where PyTorch is not installed.
"""

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from toy_runs import CHECKPOINT, HERE, config, toy_dataset, trained_run

from aer_jax.cli import main
from aer_jax.data.dataset import open_dataset
from aer_jax.errors import UserError
from aer_jax.inference import export as module
from aer_jax.inference.export import add_in_place, best_model, export, write_merged
from aer_jax.models.adapters.peft_format import LEARNED
from aer_jax.training import setup
from aer_jax.training.predictor import Predictor
from aer_jax.training.run import Run, open_run
from aer_jax.training.trainer import train

SHORT = ("train.epochs=1", "data.augment=0", "data.dime_aug.ratio=0")


@pytest.fixture(scope="module")
def torch_model():
    pytest.importorskip("torch")
    import torch_emotion_model

    return torch_emotion_model


@pytest.fixture(scope="module", params=["readout", "paper"])
def run(request) -> Run:
    """A short training run whose adapters have moved far from nothing."""
    if request.param == "readout":
        return open_run(trained_run())
    return train(config(HERE / "paper_head", *SHORT, "model.head=paper", "train.head_lr=1e-2"))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "deeper" / "out"
    assert main(["export", "--run", str(run.path), "--format", "peft,merged", "--out", str(out)]) == 0
    assert {path.name for path in out.parent.iterdir()} == {"out"} and {path.name for path in out.iterdir()} == {
        "peft",
        "merged",
    }
    return out


@pytest.fixture(scope="module")
def test_clips():
    """Clips of unequal lengths and their words."""
    dataset = open_dataset(toy_dataset())
    ids = dataset.splits["test"][:6]
    return ids, [dataset.audio(id) for id in ids], [dataset.utterances[id].transcript for id in ids]


@pytest.fixture(scope="module")
def ours(run, test_clips) -> np.ndarray:
    return Predictor(run).predict_utterances(open_dataset(toy_dataset()), test_clips[0])


def test_peft_gives_our_predictions(exported, ours, test_clips, torch_model, record_property):
    from peft import PeftModel

    about = torch_model.read_about(exported / "peft")
    base = torch_model.load_base(CHECKPOINT, about)
    model = PeftModel.from_pretrained(base, exported / "peft").eval().get_base_model()
    theirs = torch_model.predict(model, CHECKPOINT, about, *test_clips[1:])
    record_property("error", float(np.abs(theirs - ours).max()))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)

    for layer in model.modules():
        if hasattr(layer, "lora_B"):
            layer.lora_B["default"].weight.data.zero_()
    without = torch_model.predict(model, CHECKPOINT, about, *test_clips[1:])
    assert np.abs(without - ours).max() > 1e-3, "the adapters must matter for this test to see them"


def test_transformers_gives_our_predictions_with_merged_weights(
    exported, ours, test_clips, torch_model, record_property
):
    from transformers import Qwen2AudioForConditionalGeneration

    merged = exported / "merged"
    _, report = Qwen2AudioForConditionalGeneration.from_pretrained(merged, output_loading_info=True)
    assert not any(report.values())
    about = torch_model.read_about(merged)
    model = torch_model.load_base(merged, about)
    torch_model.load_head(model, merged)
    theirs = torch_model.predict(model, merged, about, *test_clips[1:])
    record_property("error", float(np.abs(theirs - ours).max()))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_a_fitted_readout_of_the_audio_alone_is_exported_too(test_clips, torch_model, tmp_path):
    run = train(config(tmp_path / "run", "train.epochs=0", "model.readout=audio", "data.dime_aug.ratio=0"))
    out = export(run.path, ["merged"], tmp_path / "out")["merged"]
    about = torch_model.read_about(out)
    model = torch_model.load_base(out, about)
    torch_model.load_head(model, out)
    ours = Predictor(run).predict_utterances(open_dataset(toy_dataset()), test_clips[0])
    np.testing.assert_allclose(torch_model.predict(model, out, about, *test_clips[1:]), ours, atol=1e-4)
    assert about["hidden_size"] == 0 and np.ptp(ours, axis=0).max() > 0.1


def test_only_adapted_weights_differ_from_the_base(exported):
    base, merged = (load_file(path / "model.safetensors") for path in (CHECKPOINT, exported / "merged"))
    assert base.keys() == merged.keys()
    changed = {name for name in base if not np.array_equal(base[name], merged[name])}
    text = {f"language_model.model.layers.{i}.self_attn.{p}_proj.weight" for i in range(3) for p in "qkvo"}
    audio = {f"audio_tower.layers.{i}.self_attn.{p}_proj.weight" for i in range(3) for p in "qkv"}
    assert changed == text | audio


def test_what_the_json_says(run, exported):
    about, merged = (json.loads((exported / name / "emotion_head.json").read_text()) for name in ("peft", "merged"))
    assert about == merged
    assert about["head"] == run.config.model.head and tuple(about["classes"]) == run.classes
    assert about["prompt"].count("<|AUDIO|>") == 1 and "{transcript}" in about["prompt"]
    assert "{transcript}" not in about["prompt_without_transcript"]


def test_training_starts_with_what_was_exported(run, exported, tmp_path, monkeypatch):
    """Adapters, head and, of the readout, its statistics, bit for bit, when the first step is about to be compiled."""

    class Begun(Exception):
        pass

    def begin(model):
        raise Begun(nnx.state(model, LEARNED))

    monkeypatch.setattr(setup, "split_model", begin)
    settings = (f"model.head={run.config.model.head}", f"model.adapter={exported / 'peft'}", "seed=9")
    with pytest.raises(Begun) as begun:
        train(config(tmp_path / "again", *SHORT, *settings))
    was = nnx.state(best_model(run), LEARNED)
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), was, begun.value.args[0])
    assert all(jax.tree.leaves(same)) and jax.tree.leaves(same)


def test_one_format_is_written_into_the_directory_itself(run, exported, tmp_path, capsys):
    out = tmp_path / "adapter"
    assert main(["export", "--run", str(run.path), "--format", "peft", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"peft": str(out)}
    assert {path.name for path in out.iterdir()} == {path.name for path in (exported / "peft").iterdir()}


def test_a_sharded_base_is_merged_shard_by_shard(run, exported, tmp_path):
    pytest.importorskip("torch")
    from transformers import Qwen2AudioForConditionalGeneration

    base, out = tmp_path / "base", tmp_path / "out"
    Qwen2AudioForConditionalGeneration.from_pretrained(CHECKPOINT).save_pretrained(base, max_shard_size="500KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"):
        shutil.copy(CHECKPOINT / name, base)
    settings = dataclasses.replace(run.config, model=dataclasses.replace(run.config.model, checkpoint=str(base)))
    out.mkdir()
    write_merged(dataclasses.replace(run, config=settings), best_model(run), out)
    shards = [load_file(file) for file in out.glob("model-*.safetensors")]
    assert len(shards) > 2
    sharded, whole = (
        {k: v for shard in shards for k, v in shard.items()},
        load_file(exported / "merged/model.safetensors"),
    )
    assert sharded.keys() == whole.keys() and all(np.array_equal(sharded[name], whole[name]) for name in whole)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_folding_in_rounds_once(tmp_path, dtype):
    rng = np.random.default_rng(0)
    weight, b, a = (rng.standard_normal(shape).astype(np.float32) for shape in ((6, 5), (6, 2), (2, 5)))
    save_file({"x": weight.astype(dtype), "w": weight.astype(dtype)}, tmp_path / "model.safetensors")
    assert add_in_place(tmp_path / "model.safetensors", {"w": (b, a), "elsewhere": (b, a)}) == ["w"]
    tensors = load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(tensors["x"], weight.astype(dtype))
    np.testing.assert_array_equal(tensors["w"], (weight.astype(dtype).astype(np.float32) + b @ a).astype(dtype))


def test_the_base_is_never_loaded(run):
    layer = best_model(run).base.language_model.layers.self_attn.q_proj
    assert isinstance(layer.lora.b[...], jax.Array) and np.any(layer.lora.b[...])
    assert isinstance(layer.kernel.get_value(), jax.ShapeDtypeStruct)


def raise_(error: Exception):
    raise error


def test_what_is_refused_leaves_nothing_behind(run, tmp_path, monkeypatch):
    def refused(formats, out):
        with pytest.raises(UserError) as error:
            export(run.path, formats, out)
        return str(error.value)

    (tmp_path / "taken").mkdir()
    assert "exists; remove it or choose another --out" in refused(["peft"], tmp_path / "taken")
    for formats in (["onnx"], ["peft", "peft"], [""], []):
        assert "choose peft, merged, or peft,merged" in refused(formats, tmp_path / "out")
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(["peft"], tmp_path / "file" / "out")

    full = OSError(errno.ENOSPC, "No space left on device")
    for function, error, formats in (
        (module, SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "peft"),
        (module.shutil, full, "merged"),
    ):
        name = "save_file" if function is module else "copyfile"
        with monkeypatch.context() as patch:
            patch.setattr(function, name, lambda *args, error=error, **keywords: raise_(error))
            assert f"the disk of {tmp_path / 'out'} is full" in refused([formats], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "file"}


def test_a_run_without_a_best_checkpoint_and_another_base_are_refused(run, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.yaml", "environment.json"):
        shutil.copy(run.path / name, bare)
    with pytest.raises(UserError, match="has no best checkpoint yet"):
        export(bare, ["peft"], tmp_path / "out")
    environment = json.loads((bare / "environment.json").read_text()) | {"base": "0" * 64}
    (bare / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(UserError, match="is not the base that"):
        export(bare, ["peft"], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"bare"} and open_run(run.path)
