"""The training run: set up, then a loop of steps with hooks around it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from aer_jax.base.config import read_config
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.config import Config
from aer_jax.data.batching.batches import Batch, EvaluationBatches, TrainBatches
from aer_jax.errors import UserError
from aer_jax.models.sharding import make_mesh, row_blocks
from aer_jax.training.aot_compile import abstract, compile_ahead
from aer_jax.training.batch_prediction import predict_rows
from aer_jax.training.check import check
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.distributed import is_first
from aer_jax.training.hooks.checkpoint import SaveState
from aer_jax.training.hooks.early_stopping import EarlyStopping
from aer_jax.training.hooks.hook import Hook
from aer_jax.training.hooks.metrics_log import MetricsLog
from aer_jax.training.hooks.nonfinite import refuse_not_finite
from aer_jax.training.hooks.preemption import Preemption
from aer_jax.training.hooks.profile import Profile
from aer_jax.training.objective import bhattacharyya, jensen_shannon, objective
from aer_jax.training.run import Run, holds_run, locked_run
from aer_jax.training.setup import (
    Data,
    TrainingModel,
    open_data,
    open_model,
    open_run_directory,
    pinned,
    say,
    training_batches,
)
from aer_jax.training.signals import Stopped
from aer_jax.training.step import TrainState, make_predict_step, make_train_step, to_device
from aer_jax.training.throughput import Throughput


def train(
    config: Config,
    *,
    resume: bool = False,
    profile: tuple[int, int] | None = None,
    hooks: Sequence[Hook] = (),
) -> Run:
    """Train on a dataset until its epochs are over or validation stops improving.

    Args:
        config: the settings; `out`, `data.dataset` and `model.checkpoint` must be set.
        resume: continue the run in `config.out` from its latest checkpoint; begin it where there is none yet.
        profile: first and last step of a window that is traced into `profile/` of the run.
        hooks: called around the steps after the run's own, see `hooks/hook.py`.

    Returns:
        the run, its best checkpoint on disk.

    Raises:
        UserError: something that the settings name is missing or does not fit, another process trains this run, the
            loss is not finite, or the disk is full.
        Stopped: a signal stopped the run, after saving.
    """
    check(config)
    mesh = make_mesh(config.mesh)
    if config.train.microbatch % row_blocks(mesh):
        raise UserError(
            f"train.microbatch {config.train.microbatch} must be a multiple of the {row_blocks(mesh)} devices along "
            "data and fsdp; change it or the mesh."
        )
    read_config(config.model.checkpoint)
    Checkpoint(config.model.checkpoint)
    config = pinned(config)
    with locked_run(config.out) if is_first() else contextlib.nullcontext():
        if resume and not holds_run(config):
            resume = False
            say(f"there is no run in {config.out} yet; beginning one")
        data = open_data(config, mesh)
        run = open_run_directory(config, data, resume)
        with Checkpoints(run.path / "checkpoints", keep=2) as checkpoints:
            training = _set_up(config, data, run, checkpoints, resume, mesh)
            with Checkpoints(run.path / "best", keep=1) as best:
                own = [
                    Preemption(config.train.checkpoint_minutes),
                    MetricsLog(run.path, _rates(config, mesh), lambda step: training.stream.contents(step - 1)),
                    *([Profile(run.path / "profile", profile)] if profile else []),
                    EarlyStopping(best, config.train.patience),
                    SaveState(checkpoints),
                ]
                _loop(training, [*own, *hooks])
    if training.preempted and training.step < training.total_steps:
        raise Stopped(
            f"stopped at step {training.step} of {training.total_steps} as asked; {run.path} is saved, continue it "
            "with --resume."
        )
    return run


def _loop(training: Training, hooks: Sequence[Hook]) -> None:
    with contextlib.ExitStack() as ends, jax.transfer_guard("disallow"):
        for hook in hooks:
            ends.callback(hook.on_end, training)
            hook.on_start(training)
        if (losses := training.readout_losses()) is not None:
            for hook in hooks:
                hook.on_epoch(training, losses)
        while training.step < training.total_steps and not (training.converged or training.preempted):
            training.take_step()
            for hook in hooks:
                hook.on_step(training)
            if training.epoch_ends:
                losses = training.validate()
                for hook in hooks:
                    hook.on_epoch(training, losses)


@dataclasses.dataclass
class Training:
    """A run under way, as hooks see it.

    Attributes:
        step, total_steps, steps_per_epoch: done so far, planned, and of an epoch.
        metrics: of the latest step, on the devices; `step.make_train_step` names them.
        input_seconds: how long that step waited for its batch.
        early: what early stopping remembers, part of each checkpoint.
        saving: whether a checkpoint is due after this step, before the epoch's end.
        saved_at: time.monotonic() of the last save.
        converged: validation no longer improves; the loop ends.
        preempted: a signal asked to stop; the loop ends.
    """

    run: Run
    stream: TrainBatches
    validation: EvaluationBatches
    validation_nk: np.ndarray
    model: TrainingModel
    mesh: jax.sharding.Mesh
    batches: Iterator[Batch]
    train_step: Callable[..., Any]
    predict_step: Callable[..., Any]
    state: TrainState
    step: int
    total_steps: int
    early: dict[str, np.ndarray]
    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    input_seconds: float = 0.0
    saving: bool = False
    saved_at: float = 0.0
    converged: bool = False
    preempted: bool = False

    @property
    def steps_per_epoch(self) -> int:
        return self.stream.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.steps_per_epoch

    @property
    def epoch_ends(self) -> bool:
        return self.step % self.steps_per_epoch == 0

    def take_step(self) -> None:
        """One optimizer step, started on the devices."""
        began = time.monotonic()
        batch = next(self.batches)
        self.input_seconds = time.monotonic() - began
        with jax.profiler.StepTraceAnnotation("train", step_num=self.step + 1):
            on_devices = to_device(batch, self.mesh, self.run.config.train.microbatch)
            self.state, self.metrics = self.train_step(self.state, self.model.frozen, on_devices)
        self.step += 1

    def validate(self) -> dict[str, float]:
        """Losses on the validation split.

        Raises:
            UserError: they are not finite.
        """
        model_now = functools.partial(self.predict_step, self.state.trainable, self.model.frozen)
        logits_nk = predict_rows(
            self.validation, len(self.validation_nk), self.validation_nk.shape[1], model_now, self.mesh
        )
        losses = validation_losses(logits_nk, self.validation_nk, self.run.config.train.entropy_weight)
        refuse_not_finite(losses["val_loss"], "the validation loss", self.step)
        return losses

    def readout_losses(self) -> dict[str, float] | None:
        """Losses of a readout that was just fitted, of the validation split or of speakers left out."""
        fitted = self.model.fitted
        if fitted is None:
            return None
        if self.total_steps:
            return self.validate() | fitted.choice
        entropy_weight = self.run.config.train.entropy_weight
        return validation_losses(fitted.logits_nk, fitted.targets_nk, entropy_weight) | fitted.choice

    def learned(self) -> nnx.State:
        """The weights to predict with."""
        return nnx.merge_state(self.state.trainable, self.model.statistics)

    def resumable(self) -> dict[str, Any]:
        """All that a later process needs to go on exactly."""
        return {"state": self.state, "statistics": self.model.statistics, "early": self.early}

    say = staticmethod(say)


def _set_up(
    config: Config, data: Data, run: Run, checkpoints: Checkpoints, resume: bool, mesh: jax.sharding.Mesh
) -> Training:
    latest = checkpoints.latest if resume else None
    stream = training_batches(config, data, run, latest is None, mesh)
    batches = iter(stream.iter_dataset)
    ends = [epochs * stream.steps_per_epoch for epochs in run.epochs]
    validation = data.validation
    jax.set_mesh(mesh)
    model = open_model(config, data, run, checkpoints, latest, ends, mesh)
    if latest is not None:
        batches.set_state({"next_index": latest})  # all of the iterator's state, on however many processes
    step = latest or 0
    begins = step < ends[-1]
    train_step = compile_ahead(
        make_train_step(
            model.graphdef,
            model.optimizer,
            rate=model.rate,
            entropy_weight=config.train.entropy_weight,
            seed=config.seed,
            shardings=jax.tree.map(lambda a: a.sharding, model.state),
        ),
        (model.state, model.frozen),
        [
            abstract(to_device(batch, mesh, config.train.microbatch))
            for batch in (stream.dummy_batches() if begins else [])
        ],
        "steps",
    )
    predict_step = compile_ahead(
        make_predict_step(model.graphdef),
        (model.state.trainable, model.frozen),
        [abstract(to_device(batch, mesh)) for batch in (validation.dummy_batches() if begins else [])],
        "predictions",
    )
    return Training(
        run=run,
        stream=stream,
        validation=validation,
        validation_nk=data.validation_nk,
        model=model,
        mesh=mesh,
        batches=batches,
        train_step=train_step,
        predict_step=predict_step,
        state=model.state,
        step=step,
        total_steps=ends[-1],
        early=model.early,
    )


def _rates(config: Config, mesh: jax.sharding.Mesh) -> Throughput:
    return Throughput(read_config(config.model.checkpoint), mesh.devices.flatten().tolist())


@jax.jit
def agreement(logits_nk: jax.Array, targets_nk: jax.Array, entropy_weight: float) -> dict[str, jax.Array]:
    """Means over a split, compiled as one: operation by operation each would be compiled once a type."""
    return {
        "val_loss": objective(logits_nk, targets_nk, entropy_weight).mean(),
        "val_js": jensen_shannon(logits_nk, targets_nk).mean() / math.log(2),
        "val_bc": bhattacharyya(logits_nk, targets_nk).mean(),
    }


def validation_losses(logits_nk: np.ndarray, targets_nk: np.ndarray, entropy_weight: float) -> dict[str, float]:
    """The training loss (nats), the divergence (base 2) and the Bhattacharyya coefficient on the validation split."""
    with jax.transfer_guard("allow"):
        means = jax.device_get(agreement(logits_nk, targets_nk.astype(np.float32), entropy_weight))
    return {name: float(value) for name, value in means.items()}
