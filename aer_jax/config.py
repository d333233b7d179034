"""Every setting of a run: frozen dataclasses, YAML in, `key=value` on top, a named recipe underneath.

A number's range is declared next to it. The docstrings' Attributes are what `aer-jax config` prints, a key a line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from aer_jax.bounds import COUNT, SEED, Range
from aer_jax.errors import UserError
from aer_jax.files.typed_settings import LocalPath, build, merge, read_settings, short

Remat = Literal["none", "dots", "full"]  # see `ModelConfig`
Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 1e6)]
Rate = Annotated[float, Range(0, 100)]
Devices = Annotated[int, Range(1, 2**20, also=-1)]


@dataclass(frozen=True)
class LabelsConfig:
    """Whose votes a run learns from.

    Attributes:
        source: human votes, synthetic ones (a journal), or both pooled.
        journal: the journal of `aer-jax annotate`; needed unless source is human.
        synthetic_weight: what one synthetic vote counts relative to one human vote when pooled; 1 is the paper's.
            "learned": the weight that predicts held-out human votes of the validation speakers best, see
            `labels/pooling.py`.
        prior_votes: a clip with n votes counts n / (n + prior_votes) in the loss, so few listeners say less than many;
            0 lets all clips count alike.
        missing: clips without a synthetic vote, where the source is combined: "human" learns from their human votes
            alone, "drop" leaves them out of training and validation. Synthetic votes alone have nothing to fall back
            on, so there "human" refuses such a journal.
    """

    source: Literal["human", "synthetic", "combined"] = "human"
    journal: LocalPath | None = None
    synthetic_weight: Weight | Literal["learned"] = 1.0
    prior_votes: Weight = 0.0
    missing: Literal["human", "drop"] = "human"


@dataclass(frozen=True)
class DimeAugConfig:
    """DiME-Aug: classes below `ratio` x the largest class are filled up to it; ratio 0 turns it off.

    Attributes:
        ratio: share of the largest class, 0 to 1.
        neighbours: nearest neighbours inside the class, the point itself not counted.
    """

    ratio: Share = 0.3
    neighbours: Annotated[int, Range(1, 1000)] = 3


@dataclass(frozen=True)
class DataConfig:
    """What is fed to the model.

    Attributes:
        dataset: directory written by `aer-jax prepare`.
        transcript: whether the prompt quotes the words.
        speaker: whether the prompt names the speaker (the paper does; it leaks identity).
        max_seconds: longer clips are cut; the audio tower takes at most 30 s.
        shapes: how many batch shapes (audio window and prompt length) the clips are sorted into, each compiled; 0: the
            fewest with which less than a tenth of frames and of positions is padding, see `Buckets.choose`.
        augment: probability of online pitch or tempo augmentation of a training clip.
        sampling: "uniform" visits every clip once per epoch, "balanced" draws classes equally often.
    """

    dataset: LocalPath = ""
    transcript: bool = True
    speaker: bool = False
    max_seconds: Annotated[float, Range(0.1, 30, unit="s")] = 30.0
    shapes: Annotated[int, Range(0, 100)] = 0
    augment: Share = 0.3
    sampling: Literal["uniform", "balanced"] = "uniform"
    dime_aug: DimeAugConfig = field(default_factory=DimeAugConfig)


@dataclass(frozen=True)
class LoraConfig:
    """Adapters (Hu et al., 2021): W + (alpha / rank) B A, dropout, in 256ths, on the adapter's input.

    Attributes:
        rank: of A and B.
        alpha: alpha / rank scales the product.
        dropout: share of the adapter's input that a step drops.
        targets: regular expressions; a linear layer gets an adapter where one matches its whole torch name,
            for instance `language_model.layers.7.self_attn.q_proj`, layer numbers written as `N`.
    """

    rank: Annotated[int, Range(1, 4096)] = 8
    alpha: Annotated[float, Range(0, 1e5, above=True)] = 16.0
    dropout: Annotated[float, Range(0, 0.99)] = 0.2
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
        head: "paper" as published; "readout", a linear map of all audio layers' statistics and the last hidden state;
            "answers", the likelihoods of the labels as the language model's own answers.
        readout: what that linear map reads; "audio", the statistics alone, leaves out the language model, which a base
            that was never taught to listen is better without.
        remat: what the backward pass computes again instead of keeping it: "full", all of a layer but its input;
            "dots", all but the results of its matrices; "none", nothing.
    """

    checkpoint: LocalPath = ""
    adapter: LocalPath = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    head: Literal["paper", "readout", "answers"] = "readout"
    readout: Literal["audio+text", "audio"] = "audio+text"
    remat: Remat = "full"
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation.

    Attributes:
        epochs: passes over the training clips; 0 trains no adapter, mixes no clips, and fits the readout alone to the
            features of the frozen base, see `training/readout.py`, or calibrates the model's own answers, see
            `training/calibration.py`.
        batch: utterances per optimizer step.
        microbatch: utterances on the devices at a time; `batch` is a multiple of it.
        fit: with epochs, too, fit the readout to the frozen base's features of training clips, or calibrate the
            answers, before the first step, and let adapters and head go on from there (Kumar et al., 2022, arXiv
            2202.10054); wants a small `head_lr`.
        lr: peak learning rate of the adapters.
        head_lr: peak learning rate of the head.
        weight_decay: of AdamW.
        warmup: share of all steps with a rising rate; a cosine to zero follows.
        clip_norm: gradients of a larger global norm are scaled down to it.
        entropy_weight: of the prediction's entropy, added to the Jensen-Shannon loss (nats).
        patience: epochs without a better validation loss before the run stops.
        checkpoint_minutes: at most so much work is lost when a run dies; 0 saves after every step.
    """

    epochs: Annotated[int, Range(0, 100_000)] = 20
    batch: Annotated[int, COUNT] = 32
    microbatch: Annotated[int, COUNT] = 8
    fit: bool = False
    lr: Rate = 1e-4
    head_lr: Rate = 3e-2
    weight_decay: Annotated[float, Range(0, 100)] = 0.03
    warmup: Share = 0.15
    clip_norm: Annotated[float, Range(0, 1e9, above=True)] = 3.0
    entropy_weight: Annotated[float, Range(0, 100)] = 0.0
    patience: Annotated[int, Range(1, 100_000)] = 4
    checkpoint_minutes: Annotated[float, Range(0, 1e5)] = 10.0


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; -1, once, takes those that are left.

    Attributes:
        data: devices that divide the batch.
        fsdp: devices that divide the batch and the weights.
        tensor: devices that divide every matrix.
    """

    data: Devices = -1
    fsdp: Devices = 1
    tensor: Devices = 1


@dataclass(frozen=True)
class Config:
    """One run.

    Attributes:
        out: the run directory.
        recipe: the starting values; the YAML file and the command line change them.
        seed: of all random choices of the run.
    """

    out: LocalPath = ""
    recipe: Literal["default", "paper"] = "default"
    seed: Annotated[int, SEED] = 0
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


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


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `section.key=value` overrides.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value has the wrong type.
    """
    settings = read_settings(path, overrides)
    if path is not None:  # a mistake on the command line is not blamed on the file
        make_config(*read_settings(None, overrides))
    return make_config(*settings)


def make_config(settings: dict[str, Any], where: str) -> Config:
    """Settings on top of the recipe that they name; `where` they stand is said in errors.

    Raises:
        UserError: a key or the recipe is unknown, or a value has the wrong type.
    """
    recipe = settings.get("recipe", "default")
    if recipe not in list(RECIPES):  # it may be a list, which has no hash
        raise UserError(f'{where}: recipe is "{short(recipe)}"; it must be one of {", ".join(RECIPES)}.')
    return build(Config, merge(RECIPES[recipe], settings), where)


def to_yaml(config: Any) -> str:
    """The resolved settings, as `load_config` reads them."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value
