"""Names and axes of a PEFT adapter's tensors, for export and import.

adapter_model.safetensors holds `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r] for each
adapted linear layer, and the head as `base_model.model.emotion_head.<tensor>`. Modules are named as transformers 5
names them in memory (`model.language_model.layers.0...`); adapters made by older releases follow the names of the
checkpoint files (`language_model.model.layers.0...`), and both are read.

The head's tensors are those of torch.nn modules. The paper's: `attention` is MultiheadAttention, whose in_proj stacks
q, k, v in this order; `norm1`..`norm3` are LayerNorm, `linear1`..`linear3` Linear. The readout's: `linear`, and the
buffers `mean` and `deviation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import nnx
from flax.typing import Key, PathParts

from aer_jax.base.hub import split_revision
from aer_jax.config import ModelConfig
from aer_jax.models.adapters.lora import LoRA, torch_name
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.emotion_model import TRAINABLE, EmotionModel, model_builder
from aer_jax.models.weights import RULES, base_parameters

PREFIX = "base_model.model."
HEAD = "emotion_head"
LEARNED = nnx.Any(TRAINABLE, HeadStatistics)

IN_PROJ = ("q_proj", "k_proj", "v_proj")  # the order in which torch stacks them

Values = dict[PathParts, np.ndarray]


def abstract_model(config: ModelConfig, classes: Sequence[str]) -> EmotionModel:
    """The model's shapes without its arrays, the base's included."""
    return nnx.eval_shape(model_builder(config, classes))


class Adapted(NamedTuple):
    """One linear layer of torch's model that has an adapter.

    Attributes:
        name: in transformers' model, `model.language_model.layers.0.self_attn.q_proj`.
        weight: its weight's name in a checkpoint file, `language_model.model.layers.0.self_attn.q_proj.weight`.
        path: of our `LoRA` in the emotion model.
        layer: where it stands in the stack, `...` where there is none.
    """

    name: str
    weight: str
    path: PathParts
    lora: LoRA
    layer: Any


def adapted_layers(model: EmotionModel) -> Iterator[Adapted]:
    """Every adapted linear layer, one per layer of a stack; the model may be abstract."""
    parameters = {parameter.path: parameter for parameter in base_parameters(model.base)}
    for path, module in nnx.iter_modules(model.base):
        if isinstance(module, LoRA):
            kernel = parameters[*path[:-1], "kernel"]
            name = f"model.{torch_name(path[:-1])}"
            for layer, weight in enumerate(kernel.names):
                index = layer if kernel.stacked else ...
                yield Adapted(name.replace(".N.", f".{layer}."), weight, ("base", *path), module, index)


def adapter_tensors(model: EmotionModel) -> dict[str, np.ndarray]:
    """Adapters and head as adapter_model.safetensors holds them, float32."""
    tensors = {}
    for layer in adapted_layers(model):
        for matrix, parameter in (("lora_A", layer.lora.a), ("lora_B", layer.lora.b)):
            value = np.asarray(parameter[...], np.float32)[layer.layer]
            tensors[f"{PREFIX}{layer.name}.{matrix}.weight"] = np.ascontiguousarray(value.T)
    return tensors | {f"{PREFIX}{HEAD}.{name}": tensor for name, tensor in head_tensors(model.emotion_head).items()}


def weight_updates(model: EmotionModel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Updates of merged weights: tensor's name -> (alpha / r) B [out, r] and A [r, in]."""
    return {
        layer.weight: (
            layer.lora.scaling * np.asarray(layer.lora.b[...], np.float32)[layer.layer].T,
            np.asarray(layer.lora.a[...], np.float32)[layer.layer].T,
        )
        for layer in adapted_layers(model)
    }


def adapter_config(model: EmotionModel, config: ModelConfig) -> dict[str, Any]:
    """What adapter_config.json says."""
    targets = sorted({re.sub(r"\.\d+\.", ".N.", layer.name) for layer in adapted_layers(model)})
    base, revision = split_revision(config.checkpoint)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        "r": config.lora.rank,
        "lora_alpha": int(config.lora.alpha) if float(config.lora.alpha).is_integer() else config.lora.alpha,
        "lora_dropout": config.lora.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": "|".join(re.escape(target).replace(r"\.N\.", r"\.\d+\.") for target in targets),
        "modules_to_save": [HEAD],
    }


class HeadTensor(NamedTuple):
    """One of torch's head tensors: our parameters that it stacks, each transposed, and its shape."""

    paths: tuple[PathParts, ...]
    shape: tuple[int, ...]


def head_layout(head: nnx.Module) -> dict[str, HeadTensor]:
    """torch's name of each of a head's tensors; the head may be abstract."""
    torch_kinds: dict[Key, str] = {name: torch for name, torch, *_ in RULES}
    shapes = {path: variable.shape[::-1] for path, variable in nnx.to_flat_state(nnx.state(head))}
    layout = {}
    for (module, *kind), shape in shapes.items():
        if module in IN_PROJ:
            paths = tuple((part, *kind) for part in IN_PROJ)
            name, shape = f"attention.in_proj_{torch_kinds[kind[0]]}", (len(IN_PROJ) * shape[0], *shape[1:])
        else:
            paths = ((module, *kind),)
            name = ".".join([str(module), *(torch_kinds[part] for part in kind)])
            name = f"attention.{name}" if module == "out_proj" else name
        layout[name] = HeadTensor(paths, shape)
    return layout


def head_tensors(head: nnx.Module) -> dict[str, np.ndarray]:
    """A head's parameters and statistics in torch's names and layout, float32, in C order as safetensors needs it."""
    values = {path: np.asarray(v[...], np.float32) for path, v in nnx.to_flat_state(nnx.state(head))}
    return {
        name: np.ascontiguousarray(np.concatenate([values[path].T for path in tensor.paths]))
        for name, tensor in head_layout(head).items()
    }


def head_values(head: nnx.Module, tensors: dict[str, np.ndarray]) -> Values:
    """The inverse of `head_tensors`, by path in the emotion model."""
    return {
        (HEAD, *path): part.T
        for name, tensor in head_layout(head).items()
        for path, part in zip(tensor.paths, np.split(tensors[name], len(tensor.paths)), strict=True)
    }
