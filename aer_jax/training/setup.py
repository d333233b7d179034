"""Setup of a run before its first step: data, run directory, model, state."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from aer_jax.base.hub import pin
from aer_jax.config import Config
from aer_jax.data import dime_aug, dime_features
from aer_jax.data.batching.batches import EvaluationBatches, TrainBatches, evaluation_batches, train_batches
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.examples import Example, real_examples, weighed
from aer_jax.data.prompt import PromptEncoder
from aer_jax.files.atomic import replace_text
from aer_jax.models.adapters.peft_import import read_adapter
from aer_jax.models.answers_head import AnswersHead
from aer_jax.models.emotion_head import HeadStatistics, ReadoutHead
from aer_jax.models.emotion_model import load_model
from aer_jax.training import calibration, readout
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.distributed import first_before_others, host_of, is_first
from aer_jax.training.hooks.early_stopping import no_epochs_yet
from aer_jax.training.optimizer import make_optimizer, schedule
from aer_jax.training.run import Run, add_facts, create_run, open_run, resume_run
from aer_jax.training.step import TrainState, init_state, split_model
from aer_jax.training.targets import Targets
from aer_jax.training.training_data import save_training_data


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run learns from.

    Attributes:
        dataset, prompt: the clips, and what turns one into tokens.
        targets: distributions and weights by id.
        targets_nk, validation_nk: distributions of the training and the validation split.
        weights_n: of the training clips in the loss.
        batches_of: (ids, targets_nk) -> evaluation batches of these clips.
        missing: what was decided about clips without a synthetic vote, see `Targets.settle_missing`.
    """

    dataset: Dataset
    prompt: PromptEncoder
    targets: Targets
    targets_nk: np.ndarray
    validation_nk: np.ndarray
    weights_n: np.ndarray
    batches_of: Callable[..., EvaluationBatches]
    missing: dict | None

    @property
    def validation(self) -> EvaluationBatches:
        """The validation split."""
        return self.batches_of(self.dataset.splits["validation"], targets_nk=self.validation_nk)


@dataclasses.dataclass(frozen=True)
class TrainingModel:
    """A model in parts, what changes it, and where its training stands.

    Attributes:
        graphdef: its structure.
        state, frozen: what a step changes, and the rest.
        statistics: the part of `frozen` that a run computes itself, saved with the trainables.
        optimizer, rate: the update rule, and its learning rate by step.
        early: what early stopping remembers.
        fitted: what a readout that was just fitted says of itself.
    """

    graphdef: nnx.GraphDef
    state: TrainState
    frozen: nnx.State
    statistics: nnx.State
    optimizer: optax.GradientTransformation
    rate: optax.Schedule
    early: dict[str, np.ndarray]
    fitted: readout.FitResult | None


def say(text: str) -> None:
    """Print a line above the progress bars, by process 0 alone."""
    if is_first():
        tqdm.write(text, file=sys.stderr)


def pinned(config: Config) -> Config:
    """The settings with a hub id pinned to its current commit, so that a resumed run has the same base."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, checkpoint=pin(config.model.checkpoint)))


def open_data(config: Config, mesh: jax.sharding.Mesh) -> Data:
    """The dataset with its prompts and targets.

    Raises:
        UserError: the dataset, the journal or the checkpoint cannot be used.
    """
    targets = Targets(open_dataset(config.data.dataset), config.labels)
    dataset, missing = targets.settle_missing()
    if missing:
        say(missing["sentence"])
    prompt = PromptEncoder.of(config, dataset.classes)
    prompt.refuse_long_prompts(dataset, dataset.splits["test"], config.data.max_seconds)  # others are by their streams
    batches_of = functools.partial(
        evaluation_batches,
        dataset=dataset,
        prompt=prompt,
        shapes=config.data.shapes,
        batch=config.train.microbatch,
        max_seconds=config.data.max_seconds,
        host=host_of(mesh),
    )
    return Data(
        dataset,
        prompt,
        targets,
        targets.distributions(dataset.splits["train"]),
        targets.distributions(dataset.splits["validation"]),
        targets.weights(dataset.splits["train"]),
        batches_of,
        missing,
    )


def open_run_directory(config: Config, data: Data, resume: bool) -> Run:
    """The run directory, made or continued by the first process."""
    with first_before_others("run directory"):
        if not is_first():
            return open_run(config.out)
        run = resume_run(config) if resume else create_run(config, data.dataset.classes)
        save_training_data(run, data.dataset)
        return run


def training_batches(config: Config, data: Data, run: Run, begins: bool, mesh: jax.sharding.Mesh) -> TrainBatches:
    """The training stream with DiME-Aug's mixes; prints and records what it holds.

    Args:
        begins: whether the run has no checkpoint yet; what an earlier process left is then removed.
    """
    with first_before_others("DiME-Aug's plan"):
        if config.train.epochs and begins and is_first():  # of a process that died before its first checkpoint
            shutil.rmtree(run.path / "best", ignore_errors=True)
        mixes = dime_aug_examples(config, data.dataset, data.targets_nk, run.path / "dime_aug.json")
    ids = data.dataset.splits["train"]
    stream = train_batches(
        real_examples(ids, data.targets_nk, data.weights_n)
        + weighed(mixes, dict(zip(ids, data.weights_n, strict=True))),
        data.dataset,
        data.prompt,
        shapes=config.data.shapes,
        batch=config.train.batch,
        seed=config.seed,
        augment=config.data.augment,
        sampling=config.data.sampling,
        max_seconds=config.data.max_seconds,
        host=host_of(mesh),
    )
    if is_first():
        add_facts(run, batches=stream.facts(), **({"without_synthetic_vote": data.missing} if data.missing else {}))
        if config.labels.source == "combined":
            add_facts(run, synthetic_weight=data.targets.synthetic_weight)
    what = "the answers are calibrated" if config.model.head == "answers" else "the readout alone is fitted"
    no_steps = f"train.epochs is 0: no steps; {what}, to train and validation split"
    say(stream.sentence() if config.train.epochs else no_steps)
    return stream


def dime_aug_examples(config: Config, dataset: Dataset, targets_nk: np.ndarray, plan_file: Path) -> list[Example]:
    """DiME-Aug's mixes for the training split, by the run's plan, which is made where there is none."""
    settings = config.data.dime_aug
    if settings.ratio == 0 or config.train.epochs == 0:  # a readout is fitted to real clips alone
        return []
    if plan_file.exists():
        return list(dime_aug.from_json(plan_file.read_text(), dataset.utterances).mixes)
    plan = dime_aug.plan(
        dataset.splits["train"],
        targets_nk,
        dataset.classes,
        functools.partial(dime_features.features, dataset),
        ratio=settings.ratio,
        neighbours=settings.neighbours,
        seed=config.seed,
    )
    for note in plan.notes():
        tqdm.write(note, file=sys.stderr)
    replace_text(plan_file, dime_aug.to_json(plan))
    return list(plan.mixes)


def open_model(
    config: Config, data: Data, run: Run, checkpoints: Checkpoints, latest: int | None, ends: Sequence[int],
    mesh: jax.sharding.Mesh,
) -> TrainingModel:  # fmt: skip
    """The model, fresh or from the run's latest checkpoint.

    Args:
        latest: step of that checkpoint; None begins.
        ends: steps at which the run, and each extension of it, ends.

    Raises:
        UserError: base, adapter or checkpoint cannot be read or does not fit.
    """
    model_settings = config.model
    start = read_adapter(model_settings, data.dataset.classes) if model_settings.adapter and latest is None else None
    model = load_model(model_settings, data.dataset.classes, mesh, config.seed)
    if start:
        start.update(model)
        say(start.note)
    fitted = None
    if latest is None and not (start and start.has_head):
        if isinstance(model.emotion_head, ReadoutHead):
            fitted = readout.init_readout(model, config, data, mesh)
        elif isinstance(model.emotion_head, AnswersHead) and (config.train.fit or config.train.epochs == 0):
            fitted = calibration.calibrate(model, config, data, mesh)
        if fitted and config.train.epochs == 0 and is_first():
            readout.save_left_out(fitted, run.path)
    graphdef, trainable, frozen = parts = split_model(model)
    if is_first():
        states = {"trainable": trainable, "frozen": frozen}
        add_facts(run, parameters={name: sum(a.size for a in jax.tree.leaves(state)) for name, state in states.items()})
    # A run that an earlier version began goes on as it began.
    optimizer = make_optimizer(config.train, *ends, decay_all=run.environment.get("biases_decay", True))
    state, early = init_state(parts, optimizer, mesh), no_epochs_yet()
    statistics, base = frozen.split(HeadStatistics, ...)
    if latest is not None:
        like = {"state": state, "statistics": statistics, "early": early}
        loaded = checkpoints.load(latest, {"learned": like})["learned"]
        state, statistics, early = loaded["state"], loaded["statistics"], loaded["early"]
        if (extended := run.environment.get("extended")) and latest == extended[-1]["step"]:
            early["stale_epochs"] = np.array(0)
    rate = schedule(config.train.lr, config.train.warmup, *ends)
    return TrainingModel(graphdef, state, nnx.merge_state(statistics, base), statistics, optimizer, rate, early, fitted)
