"""A PEFT adapter directory as the start of a run; everything that does not fit is found before the base is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file

from aer_jax.config import LoraConfig, ModelConfig
from aer_jax.errors import UserError
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.models.fingerprint import is_base
from aer_jax.models.peft_format import (
    HEAD,
    LEARNED,
    PREFIX,
    Values,
    abstract_model,
    adapted_layers,
    head_layout,
    head_values,
)

ABOUT_HEAD = "emotion_head.json"  # written beside an exported head: kind, classes, base, prompt

# Settings of adapters that compute something else than W + (alpha / r) B A; so does every `use_...`.
VARIANTS = (
    "rank_pattern", "alpha_pattern", "lora_bias", "alora_invocation_tokens", "arrow_config",
    "trainable_token_indices", "target_parameters", "layer_replication",
)  # fmt: skip
# Initialisations that change the base, so that the adapters belong to another one.
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        values: numpy arrays by path in the emotion model.
        has_head: whether the head is among them; otherwise it starts fresh.
        note: which of both, in one line for the user.
    """

    values: Values
    has_head: bool
    note: str

    def put_into(self, model: EmotionModel) -> None:
        """Overwrite a loaded model's fresh adapters and, where there is one, its head, in place."""
        for path, variable in nnx.to_flat_state(nnx.state(model, LEARNED)):
            if path in self.values:
                value = self.values[path].astype(variable.dtype)
                variable.set_value(jax.device_put(value, variable.sharding))


def read_adapter(config: ModelConfig, classes: Sequence[str]) -> Start:
    """Read the adapter directory `config.adapter` and check it against the settings and the base's shapes.

    Both layouts of names are read. The head is taken where it is of the run's kind and for as many classes (and, where
    emotion_head.json says which, for the same ones in the same order). The paper's head may have been saved under
    other names than ours: a torch.nn.MultiheadAttention and three pairs of LayerNorm and Linear are told by shape and,
    where shapes are equal, by the order of their numbers.

    Args:
        config: names the adapter, the base, the expected adapters and the head.
        classes: of the run.

    Raises:
        UserError: no adapter directory, broken or pickled weights, another rank, alpha, targets or base, a variant
            that is not plain LoRA, or tensors that are neither adapters nor a known head.
    """
    folder = Path(config.adapter)
    _check_settings(_read_json(folder / "adapter_config.json"), config.lora, folder)
    about = _read_json(folder / ABOUT_HEAD) if (folder / ABOUT_HEAD).is_file() else {}
    base = about.get("base_fingerprint")
    if base is not None and not is_base(base, config.checkpoint):
        raise UserError(
            f"{folder} was trained on another base ({about.get('base')}) than {config.checkpoint}; set "
            f"model.checkpoint to that one, or remove base_fingerprint from {folder / ABOUT_HEAD} to try this one."
        )
    model = abstract_model(config, len(classes))
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in _read_tensors(folder).items()}
    adapters = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    values = _adapter_values(model, adapters, folder, config)
    head = {name: tensor for name, tensor in tensors.items() if name not in adapters}
    why_fresh = _why_fresh(head, about, config, classes)
    if why_fresh is None:
        named = _name_head(head, model.emotion_head, folder)
        ours = {name: tensor.shape for name, tensor in head_layout(model.emotion_head).items()}
        last = named["linear3.weight" if config.head == "paper" else "linear.weight"]
        if len(last) != len(classes):
            why_fresh = f"its head has {len(last)} classes, this run {len(classes)}"
        elif wrong := [f"{n} is {[*named[n].shape]}, not {[*ours[n]]}" for n in ours if named[n].shape != ours[n]]:
            raise UserError(f"the head of {folder} was trained on another base than {config.checkpoint}: {wrong[0]}.")
        else:
            values |= head_values(model.emotion_head, named)
    if why_fresh:
        return Start(values, False, f"{folder}: adapters taken; the head starts fresh, because {why_fresh}")
    order = "" if "classes" in about else f", its classes taken to be {', '.join(classes)} in this order"
    return Start(values, True, f"{folder}: adapters and head taken{order}")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except OSError as error:
        raise UserError(
            f"{file.parent} is not a PEFT adapter directory: cannot read {file.name} ({error.strerror}); check "
            "model.adapter."
        ) from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object; copy the adapter again.")
    return content


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The adapter's tensors in float32."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        if (folder / "adapter_model.bin").exists():
            raise UserError(
                f"{folder}/adapter_model.bin is pickled and is not read; load it in PyTorch and save it again with "
                "safe_serialization=True."
            )
        raise UserError(f"{folder} holds no adapter_model.safetensors; copy the adapter again.")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{file} is not a whole safetensors file ({error}); copy it again.") from None
    tensors = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise UserError(f"{file}: {broken[0]} is not finite; export a run that did not diverge.")
    return tensors


def _check_settings(settings: dict[str, Any], lora: LoraConfig, folder: Path) -> None:
    """adapter_config.json describes plain LoRA of the rank and alpha that the run asks for."""
    if settings.get("peft_type") != "LORA":
        raise UserError(f"{folder} is a {settings.get('peft_type')} adapter; only LORA ones are read.")
    variants = [name for name, value in settings.items() if value and (name.startswith("use_") or name in VARIANTS)]
    if settings.get("bias", "none") != "none":
        variants.append("bias")
    if str(settings.get("init_lora_weights")).startswith(CHANGES_BASE):
        variants.append("init_lora_weights")
    if variants:
        raise UserError(f"{folder}/adapter_config.json sets {', '.join(variants)}; only plain LoRA is read.")
    both = {"rank": (settings.get("r"), lora.rank), "alpha": (settings.get("lora_alpha"), lora.alpha)}
    if wrong := {name: pair for name, pair in both.items() if pair[0] != pair[1]}:
        said = " and ".join(f"{name} {its}, not model.lora.{name} {ours:g}" for name, (its, ours) in wrong.items())
        mend = " ".join(f"model.lora.{name}={its}" for name, (its, _) in wrong.items())
        raise UserError(f"the adapters in {folder} have {said}; set {mend}.")


def _adapter_values(model: EmotionModel, tensors: dict[str, np.ndarray], folder: Path, config: ModelConfig) -> Values:
    """Our adapter parameters, each of the model's filled by exactly one pair of tensors."""
    layers = list(adapted_layers(model))
    known = {spelling: layer for layer in layers for spelling in layer.spellings}
    found, strangers = {}, []
    for name, tensor in tensors.items():
        module, _, ending = name.rpartition(".lora_")
        if module in known and ending in ("A.weight", "B.weight"):
            found[known[module].name, ending[0].lower()] = tensor
        else:
            strangers.append(name)
    missing = [f"{layer.name}.lora_{m.upper()}" for layer in layers for m in "ab" if (layer.name, m) not in found]
    asked, given = {_kind(name) for name in known}, {_kind(name) for name in tensors}
    if asked != given:
        differ = [f"it adapts {_some(sorted(given - asked))}, which they leave out"] if given - asked else []
        differ += [f"they ask for {_some(sorted(asked - given))}, which it does not adapt"] if asked - given else []
        raise UserError(f"{folder} and model.lora.targets differ: {'; '.join(differ)}; make them agree.")
    if strangers or missing:
        differ = [f"it has {_some(strangers)}"] if strangers else []
        differ += [f"it lacks {_some(missing)}"] if missing else []
        raise UserError(
            f"{folder} does not fit {config.checkpoint}: {'; '.join(differ)}; it was trained on another base or is not "
            "whole."
        )

    values: Values = {}
    for layer in layers:
        for ours, matrix in (("a", layer.lora.a), ("b", layer.lora.b)):
            tensor, shape = found[layer.name, ours], matrix.shape[:-3:-1]
            if tensor.shape != shape:
                raise UserError(
                    f"{folder} does not fit {config.checkpoint}: {layer.name}.lora_{ours.upper()} is "
                    f"{[*tensor.shape]}, not {[*shape]}; it was trained on another base."
                )
            values.setdefault((*layer.path, ours), np.empty(matrix.shape, np.float32))[layer.layer] = tensor.T
    return values


def _kind(name: str) -> str:
    """The layer that a tensor adapts as `model.lora.targets` writes it, whichever the layout."""
    name = re.sub(r"\.lora_.*|^model\.", "", name)
    return re.sub(r"\.\d+\.", ".N.", name.replace("language_model.model.", "language_model."))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _why_fresh(
    head: dict[str, np.ndarray], about: dict[str, Any], config: ModelConfig, classes: Sequence[str]
) -> str | None:
    """Why the run cannot take over the adapter's head, though nothing is wrong with it."""
    if not head:
        return "the adapter has none"
    kind = "paper" if any(name.endswith("in_proj_weight") for name in head) else "readout"
    if kind == "readout" and not any(name.endswith("deviation") for name in head):
        return None  # of neither kind: refused by name
    if kind != config.head:
        return f'its head is of the kind "{kind}", model.head is "{config.head}"'
    if about.get("classes", list(classes)) != list(classes):
        return f"its head predicts {', '.join(map(str, about['classes']))}, this run {', '.join(classes)}"
    return None


def _name_head(tensors: dict[str, np.ndarray], head: nnx.Module, folder: Path) -> dict[str, np.ndarray]:
    """The head's tensors under the names of `head_layout`.

    Raises:
        UserError: they are not the tensors of such a head, or their order cannot be told.
    """
    names = list(head_layout(head))
    for prefix in {name.removesuffix(names[0]) for name in tensors if name.endswith(names[0])}:
        if {f"{prefix}{name}" for name in names} == set(tensors):
            return {name: tensors[f"{prefix}{name}"] for name in names}
    named = _paper_head_by_order(tensors) if any(name.startswith("attention.") for name in names) else None
    if named is None:
        raise UserError(
            f"{folder}: {_some(sorted(tensors))} are neither adapters nor the tensors of a known head; save it as "
            f"{HEAD} with {', '.join(names)}."
        )
    return named


def _paper_head_by_order(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """torch.nn.MultiheadAttention and three pairs of LayerNorm and Linear, whatever they are called."""
    named, rest = {}, dict(tensors)
    for part in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"):
        hits = [name for name in tensors if name == part or name.endswith(f".{part}")]
        if len(hits) != 1:
            return None
        named[f"attention.{part}"] = rest.pop(hits[0])
    modules = sorted({name.rpartition(".")[0] for name in rest}, key=_natural)
    if set(rest) != {f"{module}.{part}" for module in modules for part in ("weight", "bias")}:
        return None
    hidden = named["attention.out_proj.weight"].shape[0]
    shapes = {
        "norm1": (hidden,), "norm2": (hidden,), "norm3": (hidden // 2,),
        "linear1": (hidden, hidden), "linear2": (hidden // 2, hidden), "linear3": (None, hidden // 2),
    }  # fmt: skip
    if len(modules) != len(shapes):
        return None
    for ours, shape in shapes.items():
        fits = [module for module in modules if _fits(rest[f"{module}.weight"].shape, shape)]
        # Equal shapes are told apart by number alone: `norm1` before `norm2`, `layers.0` before `layers.4`.
        if not fits or len({re.sub(r"\d+", "", module) for module in fits}) > 1:
            return None
        modules.remove(fits[0])
        named |= {f"{ours}.{part}": rest[f"{fits[0]}.{part}"] for part in ("weight", "bias")}
    return named


def _fits(shape: tuple[int, ...], asked: tuple[int | None, ...]) -> bool:
    return len(shape) == len(asked) and all(ask in (None, size) for size, ask in zip(shape, asked, strict=True))


def _natural(name: str) -> list[str | int]:
    """Sorts `layers.10` behind `layers.9`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
