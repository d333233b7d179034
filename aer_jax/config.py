"""Every setting of a run: frozen dataclasses, YAML in, `key=value` on top, a named recipe underneath."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from aer_jax.errors import UserError, nearest
from aer_jax.files import refuse_remote

Remat = Literal["none", "dots", "full"]  # see `ModelConfig`


@dataclass(frozen=True)
class LabelsConfig:
    """Whose votes a run learns from.

    Attributes:
        source: human votes, synthetic ones (a journal), or both pooled.
        journal: the journal of `aer-jax annotate`; needed unless source is human.
        synthetic_weight: what one synthetic vote counts beside one human vote when pooled; 1 is the paper's. "learned":
            the weight that predicts held-out human votes of the validation speakers best, see `labels/pooling.py`;
            "listeners": such a weight for each listener, so that unreliable ones count less.
        prior_votes: a clip with n votes counts n / (n + prior_votes) in the loss, so few listeners say less than many;
            0 lets all clips count alike.
        missing: clips without a synthetic vote, where the source is combined: "human" learns from their human votes
            alone, "drop" leaves them out of training and validation. Synthetic votes alone have nothing to fall back
            on, so there "human" refuses such a journal.
    """

    source: Literal["human", "synthetic", "combined"] = "human"
    journal: str | None = None
    synthetic_weight: float | Literal["learned", "listeners"] = 1.0
    prior_votes: float = 0.0
    missing: Literal["human", "drop"] = "human"


@dataclass(frozen=True)
class DimeAugConfig:
    """DiME-Aug: classes below `ratio` x the largest class are filled up to it; ratio 0 turns it off.

    Attributes:
        ratio: share of the largest class, 0 to 1.
        neighbours: nearest neighbours inside the class, the point itself not counted.
    """

    ratio: float = 0.3
    neighbours: int = 3


@dataclass(frozen=True)
class DataConfig:
    """What is fed to the model.

    Attributes:
        dataset: directory written by `aer-jax prepare`.
        transcript: whether the prompt quotes the words.
        speaker: whether the prompt names the speaker (the paper does; it leaks identity).
        max_seconds: longer clips are cut; the audio tower hears at most 30 s.
        shapes: how many batch shapes (audio window and prompt length) the clips are sorted into, each compiled; 0: the
            fewest with which less than a tenth of frames and of positions is padding, see `Buckets.choose`.
        augment: probability of online pitch or tempo augmentation of a training clip.
        sampling: "uniform" visits every clip once an epoch, "balanced" draws classes equally often.
        dime_aug: see DimeAugConfig.
    """

    dataset: str = ""
    transcript: bool = True
    speaker: bool = False
    max_seconds: float = 30.0
    shapes: int = 0
    augment: float = 0.3
    sampling: Literal["uniform", "balanced"] = "uniform"
    dime_aug: DimeAugConfig = field(default_factory=DimeAugConfig)


@dataclass(frozen=True)
class LoraConfig:
    """Adapters (Hu et al., 2021): W + (alpha / rank) B A, dropout, in 256ths, on the adapter's input.

    Attributes:
        targets: regular expressions; a linear layer gets an adapter where one matches its whole torch name,
            for instance `language_model.layers.7.self_attn.q_proj`, layer numbers written as `N`.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.2
    targets: tuple[str, ...] = (
        r"language_model\.layers\.N\.self_attn\.[qkvo]_proj",
        r"audio_tower\.layers\.N\.self_attn\.[qkv]_proj",
    )


@dataclass(frozen=True)
class ModelConfig:
    """The frozen base and what is trained on it.

    Attributes:
        checkpoint: directory in Hugging Face layout, or a hub id, `owner/name` or `owner/name@revision`; a run keeps
            the commit that it began with.
        adapter: PEFT adapter directory to start from, see `models/peft_import.py`; "" starts fresh.
        dtype: of the frozen base and its activations; adapters, head, norms, softmax and loss are float32.
        head: "paper" as published; "readout", a linear map of all audio layers' statistics and the last hidden state.
        readout: what that linear map reads; "audio", the statistics alone, leaves out the language model, which a base
            that was never taught to listen is better without.
        remat: what the backward pass computes again instead of keeping it: "full", all of a layer but its input;
            "dots", all but the results of its matrices; "none", nothing.
    """

    checkpoint: str = ""
    adapter: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    head: Literal["paper", "readout"] = "readout"
    readout: Literal["audio+text", "audio"] = "audio+text"
    remat: Remat = "full"
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation.

    Attributes:
        batch: utterances an optimizer step; `microbatch` of them at a time are on the device.
        epochs: 0 trains no adapter, mixes no clips, and fits the readout alone to what the frozen base hears; see
            `training/readout.py`.
        fit: with epochs, too, fit the readout to what the frozen base hears of training clips before the first step,
            and let adapters and head go on from there (Kumar et al., 2022, arXiv 2202.10054); wants a small `head_lr`.
        lr: peak learning rate of the adapters; `head_lr` of the head.
        warmup: share of all steps; a cosine to zero follows.
        entropy_weight: of the prediction's entropy, added to the Jensen-Shannon loss (nats).
        patience: epochs without a better validation loss before the run stops.
        checkpoint_minutes: at most so much work is lost when a run dies.
    """

    epochs: int = 20
    batch: int = 32
    microbatch: int = 8
    fit: bool = False
    lr: float = 1e-4
    head_lr: float = 3e-2
    weight_decay: float = 0.03
    warmup: float = 0.15
    clip_norm: float = 3.0
    entropy_weight: float = 0.0
    patience: int = 4
    checkpoint_minutes: float = 10.0


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; -1, once, takes those that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class Config:
    """One run. `recipe` sets the starting values, the YAML file and the command line change them."""

    out: str = ""
    recipe: Literal["default", "paper"] = "default"
    seed: int = 0
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


# Places on disk.
PLACES = ("out", "data.dataset", "labels.journal", "model.checkpoint", "model.adapter")

# What the paper and its released configuration set differently from the defaults above.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        # Its k = 3 counts the clip itself.
        "data": {"speaker": True, "dime_aug": {"neighbours": 2}},
        "model": {"head": "paper"},
        "train": {
            "epochs": 60, "batch": 64, "microbatch": 8, "lr": 2.5e-6, "head_lr": 2.5e-6,
            "entropy_weight": 0.08, "patience": 8,
        },
    },
}  # fmt: skip


def load_config(path: str | Path | None, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `section.key=value` overrides.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value has the wrong type.
    """
    return make_config(*read_settings(path, overrides))


def make_config(settings: dict[str, Any], where: str) -> Config:
    """Settings on top of the recipe that they name; `where` they stand is said in errors.

    Raises:
        UserError: a key or the recipe is unknown, or a value has the wrong type.
    """
    recipe = settings.get("recipe", "default")
    if recipe not in list(RECIPES):  # it may be a list, which has no hash
        raise UserError(f'{where}: recipe is "{recipe}"; it must be one of {", ".join(RECIPES)}.')
    return build(Config, merge(RECIPES[recipe], settings), where)


def read_settings(path: str | Path | None, overrides: typing.Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """A YAML file with overrides on top, not yet checked, and where it stands in words.

    Raises:
        UserError: the file is missing or not YAML, or an override is none.
    """
    settings: dict[str, Any] = {}
    where = "the command line"
    if path is not None:
        where = str(path)
        try:
            settings = yaml.safe_load(Path(path).read_text()) or {}
        except OSError as error:
            raise UserError(f"cannot read the config {path}: {error.strerror}; check the path.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            message = " ".join(str(error).split())
            raise UserError(f"{path} is not valid YAML: {message}.") from None
        if not isinstance(settings, dict):
            raise UserError(f"{path} must hold `key: value` lines, not {type(settings).__name__}.")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f'"{override}" is not an override; write section.key=value, for instance train.epochs=3.')
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f'the value of "{override}" is not valid YAML; quote it.') from None
        node = settings
        *sections, leaf = key.split(".")
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise UserError(f'"{key}": {section} is a value, not a section.')
        node[leaf] = value
    return settings, where


def to_yaml(config: Any) -> str:
    """The resolved settings, as `load_config` reads them."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`top` over `base`, section by section."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def build(cls: type, settings: dict[str, Any], where: str, prefix: str = "") -> Any:
    """`settings` as a frozen dataclass.

    Raises:
        UserError: a key is unknown or a value has the wrong type.
    """
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise UserError(f'{where}: unknown key "{name}".{nearest(str(key), hints)} Known here: {", ".join(hints)}.')
        values[key] = _convert(hints[key], value, where, name)
    return cls(**values)


def _convert(kind: Any, value: Any, where: str, name: str) -> Any:
    """`value` as `kind`, or a UserError that names the key; YAML reads 1e-4 as text, so numbers are parsed again."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"{where}: {name} is a section; write its keys below it.")
        return build(kind, value, where, f"{name}.")
    if origin is Literal:
        if value not in args:
            raise UserError(f'{where}: {name} is "{value}"; it must be one of {", ".join(map(str, args))}.')
        return value
    if origin in (types.UnionType, typing.Union):  # a kind, or None, or one of a few words
        words = [word for arg in args[1:] for word in typing.get_args(arg)]
        if value in words or (value is None and type(None) in args):
            return value
        if words and isinstance(value, str) and not _is_number(value):
            raise UserError(f'{where}: {name} is "{value}"; it must be a number or {", ".join(words)}.')
        return _convert(args[0], value, where, name)
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: {name} is a section; write its keys below it.")
        return value
    if origin is tuple:
        values = value if isinstance(value, list) else [value]
        return tuple(_convert(args[0], v, where, name) for v in values)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        if name in PLACES:
            refuse_remote(value, f"{where}: {name}")
        return value
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    raise UserError(f"{where}: {name} must be {kind.__name__}, not {value!r}.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
