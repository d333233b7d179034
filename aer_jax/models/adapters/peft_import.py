"""Start of a run from a PEFT adapter directory, checked before the base is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from aer_jax.base.fingerprint import is_base
from aer_jax.base.safetensors_files import file_name, read_header, unwrapped
from aer_jax.config import LoraConfig, ModelConfig
from aer_jax.errors import UserError
from aer_jax.files.atomic import read_json
from aer_jax.models.adapters.lora import Adaptable, torch_name
from aer_jax.models.adapters.peft_format import (
    HEAD,
    LEARNED,
    Values,
    abstract_model,
    adapted_layers,
    head_layout,
    head_values,
)
from aer_jax.models.emotion_model import EmotionModel

ABOUT_HEAD = "emotion_head.json"  # written next to an exported head: kind, classes, base, prompt

# Settings of adapters that compute something else than W + scale B A; so does every `use_...` but rsLoRA's.
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

    def update(self, model: EmotionModel) -> None:
        """Overwrite a loaded model's fresh adapters and, where there is one, its head, in place."""
        for path, variable in nnx.to_flat_state(nnx.state(model, LEARNED)):
            if path in self.values:
                value = self.values[path].astype(variable.dtype)
                variable.set_value(jax.device_put(value, variable.sharding))


def read_adapter(config: ModelConfig, classes: Sequence[str]) -> Start:
    """Read the adapter directory `config.adapter` and check it against the settings and the base's shapes.

    Both layouts of names are read. The head is taken where it is of the run's kind and for as many classes (and, where
    emotion_head.json says which, for the same ones in the same order). Its tensors have the names of `head_layout`,
    with any prefix.

    Args:
        config: names the adapter, the base, the expected adapters and the head.
        classes: of the run.

    Raises:
        UserError: no adapter directory, broken or pickled weights, another rank, alpha, targets or base, a variant
            that is not plain LoRA, or tensors that are neither adapters nor a known head.
    """
    folder = Path(config.adapter)
    factor = _check_settings(_read_json(folder / "adapter_config.json"), config.lora, folder)
    about = _read_about(folder)
    if about.get("base_fingerprint") is not None and not is_base(about["base_fingerprint"], config.checkpoint):
        raise UserError(
            f"{folder} was trained on another base ({about.get('base')}) than {config.checkpoint}; set "
            f"model.checkpoint to that one, or remove base_fingerprint from {folder / ABOUT_HEAD} to try this one."
        )
    model = abstract_model(config, classes)
    tensors = _read_tensors(folder)
    adapters = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    values = _adapter_values(model, adapters, folder, config)
    for path in values:
        if path[-1] == "b" and factor != 1:
            values[path] *= factor
    head = {name: tensor for name, tensor in tensors.items() if name not in adapters}
    why_fresh = _why_fresh(head, about, config, classes)
    if why_fresh is None:
        named = _name_head(head, model.emotion_head, folder)
        shapes = {name: tensor.shape for name, tensor in head_layout(model.emotion_head).items()}
        last = named[{"paper": "linear3.weight", "readout": "linear.weight", "answers": "bias"}[config.head]]
        if len(last) != len(classes):
            why_fresh = f"its head has {len(last)} classes, this run {len(classes)}"
        elif wrong := [
            f"{n} is {[*named[n].shape]}, not {[*shapes[n]]}" for n in shapes if named[n].shape != shapes[n]
        ]:
            raise UserError(f"the head of {folder} was trained on another base than {config.checkpoint}: {wrong[0]}.")
        else:
            values |= head_values(model.emotion_head, named)
    if why_fresh:
        return Start(values, False, f"{folder}: adapters taken; the head starts fresh, because {why_fresh}")
    order = "" if "classes" in about else f", its classes taken to be {', '.join(classes)} in this order"
    return Start(values, True, f"{folder}: adapters and head taken{order}")


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file.parent} is not a PEFT adapter directory: cannot read {file.name}; check model.adapter.")
    return read_json(file, "copy the adapter again")


def _read_about(folder: Path) -> dict[str, Any]:
    file = folder / ABOUT_HEAD
    about = _read_json(file) if file.is_file() else {}
    classes = about.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{file}: classes is {str(classes)[:40]}, not a list of names; copy the adapter again.")
    return about


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The adapter's tensors in float32, by their modules' names in the model, whatever was wrapped around it."""
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        if (folder / "adapter_model.bin").exists():
            raise UserError(
                f"{folder}/adapter_model.bin is pickled and is not read; load it in PyTorch and save it again with "
                "safe_serialization=True."
            )
        raise UserError(f"{folder} holds no adapter_model.safetensors; copy the adapter again.")
    tensors = {}
    for name, tensor in read_header(file).items():
        if ".original_module." in name:  # what modules_to_save replaces
            continue
        plain = re.sub(r"\.modules_to_save\.[^.]+(?=\.)|(?<=\.lora_[AB])\.[^.]+(?=\.weight$)", "", unwrapped(name))
        if plain in tensors:
            raise UserError(f"{file} holds two tensors for {plain}; save one adapter of the model alone.")
        tensors[plain] = tensor.read().astype(np.float32)
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise UserError(f"{file}: {broken[0]} is not finite; export a run that did not diverge.")
    return tensors


def _check_settings(settings: dict[str, Any], lora: LoraConfig, folder: Path) -> float:
    """adapter_config.json describes LoRA of the rank and scale that the run asks for.

    Returns:
        what its B is to be multiplied by, so that the run's scale alpha / r gives what its own scale gave: rsLoRA's is
        alpha over the square root of r (Kalajdzievski, 2023).
    """
    if "peft_type" not in settings:
        raise UserError(f"{folder}/adapter_config.json names no peft_type; copy the adapter again.")
    if settings["peft_type"] != "LORA":
        raise UserError(f"{folder} is a {settings.get('peft_type')} adapter; only LORA ones are read.")
    variants = [
        name
        for name, value in settings.items()
        if value and (name.startswith("use_") or name in VARIANTS) and name != "use_rslora"
    ]
    if settings.get("bias", "none") != "none":
        variants.append("bias")
    if str(settings.get("init_lora_weights")).startswith(CHANGES_BASE):
        variants.append("init_lora_weights")
    if variants:
        raise UserError(
            f"{folder}/adapter_config.json sets {', '.join(variants)}; only plain LoRA is read, with use_rslora or "
            "without."
        )
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    stabilised = math.sqrt(rank) if settings.get("use_rslora") and type(rank) is int and rank > 0 else 1.0
    if (
        rank == lora.rank
        and isinstance(alpha, int | float)
        and math.isclose(alpha * stabilised, lora.alpha, rel_tol=1e-6)
    ):
        return 1.0
    both = {"rank": (rank, lora.rank), "alpha": (alpha, lora.alpha)}
    if wrong := {name: pair for name, pair in both.items() if pair[0] != pair[1]}:
        different = " and ".join(
            f"{name} {str(its)[:40]}, not model.lora.{name} {expected:g}" for name, (its, expected) in wrong.items()
        )
        fix = " ".join(f"model.lora.{name}={str(its)[:40]}" for name, (its, _) in wrong.items())
        raise UserError(f"the adapters in {folder} have {different}; set {fix}.")
    return stabilised


def _adapter_values(model: EmotionModel, tensors: dict[str, np.ndarray], folder: Path, config: ModelConfig) -> Values:
    """Our adapter parameters, each of the model's filled by exactly one pair of tensors."""
    layers = list(adapted_layers(model))
    known = {layer.weight.removesuffix(".weight"): layer for layer in layers}
    matched, unmatched = {}, []
    for name, tensor in tensors.items():
        module, _, ending = name.rpartition(".lora_")
        module = file_name(module + ".").removesuffix(".")
        if module in known and ending in ("A.weight", "B.weight"):
            matched[known[module].name, ending[0].lower()] = tensor
        else:
            unmatched.append(name)
    missing = [f"{layer.name}.lora_{m.upper()}" for layer in layers for m in "ab" if (layer.name, m) not in matched]
    wanted, given = {_kind(name) for name in known}, {_kind(name) for name in tensors}
    linears = {torch_name(path) for path, module in nnx.iter_modules(model.base) if isinstance(module, Adaptable)}
    if foreign := sorted(given - linears):
        raise UserError(
            f"{folder} adapts {_some(foreign)}, which the model for emotions does not have; train an adapter of "
            f"{config.checkpoint} without it."
        )
    if wanted != given:
        differ = [f"it adapts {_some(sorted(given - wanted))}, which they leave out"] if given - wanted else []
        differ += [f"they ask for {_some(sorted(wanted - given))}, which it does not adapt"] if wanted - given else []
        fits = f'set "model.lora.targets=[{_targets(given)}]"'
        raise UserError(f"{folder} and model.lora.targets differ: {'; '.join(differ)}; {fits}.")
    if unmatched or missing:
        differ = [f"it has {_some(unmatched)}"] if unmatched else []
        differ += [f"it lacks {_some(missing)}"] if missing else []
        raise UserError(
            f"{folder} does not fit {config.checkpoint}: {'; '.join(differ)}; it was trained on another base or is not "
            "whole."
        )

    values: Values = {}
    for layer in layers:
        for letter, matrix in (("a", layer.lora.a), ("b", layer.lora.b)):
            tensor, shape = matched[layer.name, letter], matrix.shape[:-3:-1]
            if tensor.shape != shape:
                raise UserError(
                    f"{folder} does not fit {config.checkpoint}: {layer.name}.lora_{letter.upper()} is "
                    f"{[*tensor.shape]}, not {[*shape]}; it was trained on another base."
                )
            values.setdefault((*layer.path, letter), np.empty(matrix.shape, np.float32))[layer.layer] = tensor.T
    return values


def _kind(name: str) -> str:
    name = file_name(name.partition(".lora_")[0] + ".").removesuffix(".")
    return re.sub(r"\.\d+\.", ".N.", name.replace("language_model.model.", "language_model."))


def _targets(kinds: set[str]) -> str:
    """`model.lora.targets` that match these layers and no others, the layers of one module in one pattern."""
    by_module: dict[str, list[str]] = {}
    for kind in sorted(kinds):
        module, _, layer = kind.rpartition(".")
        by_module.setdefault(module, []).append(layer)
    return ", ".join(
        f"{module}.{layers[0]}" if len(layers) == 1 else f"{module}.({'|'.join(layers)})"
        for module, layers in by_module.items()
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _why_fresh(
    head: dict[str, np.ndarray], about: dict[str, Any], config: ModelConfig, classes: Sequence[str]
) -> str | None:
    if not head:
        return "the adapter has none"
    signs = {"paper": "in_proj_weight", "readout": "deviation", "answers": "log_temperature"}
    kinds = [kind for kind, sign in signs.items() if any(name.endswith(sign) for name in head)]
    if not kinds:
        return None  # refused by its names
    (kind, *_) = kinds
    if kind != config.head:
        return f'its head is of the kind "{kind}", model.head is "{config.head}"'
    if about.get("classes", list(classes)) != list(classes):
        return f"its head predicts {', '.join(map(str, about['classes']))}, this run {', '.join(classes)}"
    return None


def _name_head(tensors: dict[str, np.ndarray], head: nnx.Module, folder: Path) -> dict[str, np.ndarray]:
    """The head's tensors under the names of `head_layout`.

    Raises:
        UserError: they are not the tensors of such a head.
    """
    names = list(head_layout(head))
    for prefix in {name.removesuffix(names[0]) for name in tensors if name.endswith(names[0])}:
        if {f"{prefix}{name}" for name in names} == set(tensors):
            return {name: tensors[f"{prefix}{name}"] for name in names}
    raise UserError(
        f"{folder}: {_some(sorted(tensors))} are neither adapters nor the tensors of a known head; save it as {HEAD} "
        f"with {', '.join(names)}."
    )
