"""Export of a run's best model to PyTorch: a PEFT adapter, or a checkpoint with the adapters merged.

`peft` writes

- `adapter_config.json` and `adapter_model.safetensors`, as peft saves them, the head under `modules_to_save`:
  give transformers' model an `emotion_head` module with the tensors' names, then `PeftModel.from_pretrained`;
- `emotion_head.json`: what the weights do not say, namely the kind of head, its classes in order and the prompt.

`merged` writes

- a checkpoint for transformers: the base's own files, each adapted weight replaced by W + (alpha / r) B A, computed in
  float32 and rounded once to the base's type; everything else is the base's bit for bit;
- `emotion_head.safetensors`, the head's tensors alone, and the same `emotion_head.json`.

The head's modules and the names of its tensors are described in `models/peft_format.py`. Dropout aside, a head reads

- paper: the last hidden states `x` through `attention` from position 0, padding masked; then
  x + gelu(linear1(norm1(x))), gelu(linear2(norm2(x))), linear3(norm3(x));
- readout: for every audio layer the mean and then the deviation sqrt(variance + 1e-6) of its output over the valid
  frames, all layers in a row (`audio_size` numbers), then the last token's state (`hidden_size` numbers, 0 where only
  the audio is read); these minus `mean`, over `deviation`, each group over the square root of its size; then `linear`.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import save_file
from tqdm import tqdm

from aer_jax.base.hub import find_checkpoint
from aer_jax.base.safetensors_files import Checkpoint, file_name, read_header
from aer_jax.data.prompt import PromptEncoder
from aer_jax.errors import UserError
from aer_jax.files.atomic import whole_directory
from aer_jax.files.locks import locked
from aer_jax.models.adapters.peft_format import (
    LEARNED,
    abstract_model,
    adapter_config,
    adapter_tensors,
    head_tensors,
    weight_updates,
)
from aer_jax.models.adapters.peft_import import ABOUT_HEAD
from aer_jax.models.emotion_head import PaperHead, ReadoutHead
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training.predictor import best_checkpoint
from aer_jax.training.run import Run, open_run

# Of the base's files: configuration, tokenizer, processor, chat template, licence; weights are copied by name.
ACCOMPANYING = (".json", ".txt", ".jinja", ".model")


def export(path: str | Path, formats: Sequence[str], out: str | Path) -> dict[str, Path]:
    """Write a run's best model for PyTorch. The base is never loaded; merging holds one of its matrices at a time.

    Args:
        path: the run directory.
        formats: "peft", "merged", or both.
        out: appears when it is whole; one format is written into it, two into `out/peft` and `out/merged`.

    Returns:
        where each format lies.

    Raises:
        UserError: the run or its base is missing or has no best checkpoint yet, a format is unknown, `out` exists, or
            the disk is full.
    """
    writers = {"peft": write_peft, "merged": write_merged}
    unknown = [name for name in formats if name not in writers]
    if unknown or not formats or len(set(formats)) != len(formats):
        raise UserError(f"--format is {','.join(formats)}; choose peft, merged, or peft,merged.")
    run, out = open_run(path), Path(out)
    with _written_alone(out) as staging:
        model = best_model(run)
        places = {name: Path(name if len(formats) > 1 else "") for name in formats}
        for name, place in places.items():
            (staging / place).mkdir(exist_ok=True)
            writers[name](run, model, staging / place)
    return {name: out / place for name, place in places.items()}


def best_model(run: Run) -> EmotionModel:
    """Adapters and head of the run's best epoch in host memory, over a base of shapes without arrays."""
    model = abstract_model(run.config.model, run.classes)
    here = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), nnx.state(model, LEARNED)
    )
    best, step = best_checkpoint(run)
    with best:
        nnx.update(model, best.load(step, {"learned": like})["learned"])
    return model


def write_peft(run: Run, model: EmotionModel, folder: Path) -> None:
    """The adapter directory."""
    _save(adapter_tensors(model), folder / "adapter_model.safetensors")
    _write_json(folder / "adapter_config.json", adapter_config(model, run.config.model))
    _write_json(folder / ABOUT_HEAD, about_head(run, model))


def write_merged(run: Run, model: EmotionModel, folder: Path) -> None:
    """The checkpoint with the adapters folded in, and the head next to it."""
    base = find_checkpoint(run.config.model.checkpoint)
    others = [file for file in base.iterdir() if file.suffix in ACCOMPANYING or file.name.startswith("LICENSE")]
    for file in others:
        if file.is_file() and file.name != ABOUT_HEAD:
            shutil.copyfile(file, folder / file.name)
    updates = weight_updates(model)
    for file in tqdm(Checkpoint(base).files, desc="merge", unit="file"):
        shutil.copyfile(file, folder / file.name)
        for name in add_in_place(folder / file.name, updates):
            del updates[name]
    if updates:
        raise UserError(f"{base} holds no {next(iter(updates))}; put the checkpoint there that the run was trained on.")
    _save(head_tensors(model.emotion_head), folder / "emotion_head.safetensors")
    _write_json(folder / ABOUT_HEAD, about_head(run, model))


def add_in_place(file: Path, updates: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """Overwrite W by W + B A in a safetensors file, tensor by tensor; returns the names that are in it."""
    tensors = {file_name(name): tensor for name, tensor in read_header(file).items()}
    present = [name for name in updates if name in tensors]
    with file.open("r+b") as stream:
        for name in present:
            weight, (b, a) = tensors[name].read(), updates[name]
            merged = (weight.astype(np.float32) + b @ a).astype(weight.dtype)
            stream.seek(tensors[name].start)
            stream.write(merged.tobytes())
    return present


def about_head(run: Run, model: EmotionModel) -> dict[str, Any]:
    """What a PyTorch user needs besides the weights to get the same predictions."""
    config = run.config
    encoder = PromptEncoder.of(config, run.classes)
    head = model.emotion_head
    shape: dict[str, Any] = {"head": config.model.head}
    if isinstance(head, ReadoutHead):
        shape |= {"audio_size": head.sizes[0], "hidden_size": head.sizes[1]}
    elif isinstance(head, PaperHead):
        shape |= {"hidden_size": head.norm1.scale.shape[0], "attention_heads": PaperHead.heads}
    else:
        shape |= {"hidden_size": head.columns.shape[0], "label_tokens": [list(label) for label in head.labels]}
    return {
        "format": 1,
        **shape,
        "classes": list(run.classes),
        # <|AUDIO|> stands for as many audio tokens as the processor counts; the clip is cut at max_seconds.
        "prompt": encoder.text("{transcript}", "{speaker}"),
        "prompt_without_transcript": encoder.text("", "{speaker}"),
        "max_seconds": config.data.max_seconds,
        "dtype": config.model.dtype,
        "base": config.model.checkpoint,
        "base_fingerprint": run.environment["base"],
        "aer_jax": version("aer-jax"),
    }


@contextmanager
def _written_alone(out: Path) -> Iterator[Path]:
    if out.exists():
        raise UserError(f"{out} exists; remove it or choose another --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked(out.parent / f".{out.name}.lock", f"{out} is being written"), whole_directory(out) as partial:
            yield partial
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise UserError(f"the disk of {out} is full; free some space or choose another --out.") from None
        raise UserError(f"cannot write {out}: {error}; choose another --out.") from None


def _save(tensors: dict[str, np.ndarray], file: Path) -> None:
    save_file(tensors, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors leaves it to the owner alone


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
