"""The training run, from settings to a run directory; `train` reads from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from tqdm import tqdm

from aer_jax.base.config import read_config
from aer_jax.base.hub import pin
from aer_jax.base.safetensors_files import Checkpoint
from aer_jax.config import Config
from aer_jax.data import dime_aug, dime_features
from aer_jax.data.batching.batches import Batch, evaluation_batches, train_batches
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.examples import Example, real_examples, weighed
from aer_jax.data.prompt import PromptEncoder
from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_text
from aer_jax.models.adapters.peft_import import read_adapter
from aer_jax.models.emotion_head import HeadStatistics, ReadoutHead
from aer_jax.models.emotion_model import load_model
from aer_jax.models.sharding import make_mesh, row_blocks
from aer_jax.training import readout
from aer_jax.training.aot_compile import abstract, compile_ahead
from aer_jax.training.check import check
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.distributed import first_before_others, host_of, is_first
from aer_jax.training.hooks.heartbeat import alive
from aer_jax.training.hooks.metrics_log import MetricsLog
from aer_jax.training.hooks.nonfinite import refuse_not_finite
from aer_jax.training.hooks.preemption import Stopped, stop_signals
from aer_jax.training.hooks.profile import Profile
from aer_jax.training.objective import bhattacharyya, jensen_shannon, objective
from aer_jax.training.optimizer import make_optimizer, schedule
from aer_jax.training.predictor import predict_rows
from aer_jax.training.run import Run, add_facts, create_run, holds_run, locked_run, open_run, resume_run
from aer_jax.training.step import init_state, make_predict_step, make_train_step, take_apart, to_device
from aer_jax.training.targets import clip_weights, label_distributions, settle_missing, synthetic_weight
from aer_jax.training.throughput import Throughput
from aer_jax.training.training_data import keep_training_data

GO_ON, SAVE, STOP = 0, 1, 2


def train(config: Config, *, resume: bool = False, profile: tuple[int, int] | None = None) -> Run:
    """Train on a dataset until its epochs are over or validation stops improving.

    Args:
        config: the settings; `out`, `data.dataset` and `model.checkpoint` must be set.
        resume: continue the run in `config.out` from its latest checkpoint; begin it where there is none yet.
        profile: first and last step of a window that is traced into `profile/` of the run.

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
        return _train(config, mesh, resume, profile)


def _train(config: Config, mesh: jax.sharding.Mesh, resume: bool, profile: tuple[int, int] | None) -> Run:
    settings = config.train
    if resume and not holds_run(config):
        resume = False
        if is_first():
            tqdm.write(f"there is no run in {config.out} yet; beginning one", file=sys.stderr)

    # ---- data ----
    dataset, missing = settle_missing(open_dataset(config.data.dataset), config.labels)
    if missing and is_first():
        tqdm.write(missing["sentence"], file=sys.stderr)
    prompt = PromptEncoder(
        config.model.checkpoint, dataset.classes, transcript=config.data.transcript, speaker=config.data.speaker
    )
    prompt.refuse_long_prompts(dataset, dataset.splits["test"], config.data.max_seconds)  # others are by their streams
    train_ids, validation_ids = dataset.splits["train"], dataset.splits["validation"]
    targets_nk = label_distributions(dataset, train_ids, config.labels)
    validation_nk = label_distributions(dataset, validation_ids, config.labels)
    with first_before_others("run directory"):
        if is_first():
            run = resume_run(config) if resume else create_run(config, dataset.classes)
            keep_training_data(run, dataset)
        else:
            run = open_run(config.out)
    checkpoints = Checkpoints(run.path / "checkpoints", keep=2)
    latest = checkpoints.latest if resume else None
    start = read_adapter(config.model, dataset.classes) if config.model.adapter and latest is None else None
    with first_before_others("DiME-Aug's plan"):
        if (
            settings.epochs and latest is None and is_first()
        ):  # what a process left that died before its first checkpoint
            shutil.rmtree(run.path / "best", ignore_errors=True)
        mixes = dime_aug_examples(config, dataset, targets_nk, run.path / "dime_aug.json")
    weights_n = clip_weights(dataset, train_ids, config.labels)
    stream = train_batches(
        real_examples(train_ids, targets_nk, weights_n) + weighed(mixes, dict(zip(train_ids, weights_n, strict=True))),
        dataset,
        prompt,
        shapes=config.data.shapes,
        batch=settings.batch,
        seed=config.seed,
        augment=config.data.augment,
        sampling=config.data.sampling,
        max_seconds=config.data.max_seconds,
        host=host_of(mesh),
    )
    if is_first():
        add_facts(run, batches=stream.facts(), **({"without_synthetic_vote": missing} if missing else {}))
        if config.labels.source == "combined":
            add_facts(run, synthetic_weight=synthetic_weight(dataset, config.labels))
        no_steps = "train.epochs is 0: no steps; the readout alone is fitted, to train and validation split"
        tqdm.write(stream.sentence() if settings.epochs else no_steps, file=sys.stderr)
    evaluation = functools.partial(
        evaluation_batches,
        dataset=dataset,
        prompt=prompt,
        shapes=config.data.shapes,
        batch=settings.microbatch,
        max_seconds=config.data.max_seconds,
        host=host_of(mesh),
    )
    validation = evaluation(validation_ids, targets_nk=validation_nk)
    batches = iter(stream.iter_dataset)
    ends = [epochs * stream.steps_per_epoch for epochs in run.epochs]
    total_steps = ends[-1]

    # ---- model ----
    jax.set_mesh(mesh)
    model = load_model(config.model, len(dataset.classes), mesh, config.seed)
    best = Checkpoints(run.path / "best", keep=1)
    if start:
        start.put_into(model)
        if is_first():
            tqdm.write(start.note, file=sys.stderr)
    fitted: readout.Fitted | None = None
    if isinstance(model.emotion_head, ReadoutHead) and latest is None and not (start and start.has_head):
        whole = {"train": targets_nk, "validation": validation_nk}
        fitted = readout.begin(model, config, dataset, prompt, evaluation, whole, mesh)
        if fitted and settings.epochs == 0 and is_first():
            readout.keep_left_out(fitted, run.path)
    parts = take_apart(model)
    if is_first():
        states = {"trainable": parts.trainable, "frozen": parts.frozen}
        add_facts(run, parameters={name: sum(a.size for a in jax.tree.leaves(state)) for name, state in states.items()})
    rate = schedule(settings.lr, settings.warmup, *ends)
    # A run that an earlier version began goes on as it began.
    optimizer = make_optimizer(settings, *ends, decay_all=run.environment.get("biases_decay", True))
    state = init_state(parts, optimizer, mesh)

    # ---- where an earlier process stopped ----
    statistics, base = parts.frozen.split(HeadStatistics, ...)
    early = {"best_loss": np.array(math.inf), "stale_epochs": np.array(0)}
    if latest is not None:
        learned = {"state": state, "statistics": statistics, "early": early}
        learned = checkpoints.load(latest, {"learned": learned})["learned"]
        state, statistics, early = learned["state"], learned["statistics"], learned["early"]
        if (extended := run.environment.get("extended")) and latest == extended[-1]["step"]:
            early["stale_epochs"] = np.array(0)
        batches.set_state({"next_index": latest})  # all of the iterator's state, on however many processes
    frozen = nnx.merge_state(statistics, base)
    done = latest or 0

    # ---- programs ----
    alone = jax.process_count() == 1
    blanks, validation_blanks = (stream.blanks(), validation.blanks()) if done < total_steps else ([], [])
    if not alone:
        blanks = [batch | asking(batch, GO_ON) for batch in blanks]
    step = compile_ahead(
        make_train_step(
            parts.graphdef,
            optimizer,
            rate=rate,
            entropy_weight=settings.entropy_weight,
            seed=config.seed,
            where=jax.tree.map(lambda a: a.sharding, state),
        ),
        (state, frozen),
        [abstract(to_device(batch, mesh, settings.microbatch)) for batch in blanks],
        "steps",
    )
    predict = compile_ahead(
        make_predict_step(parts.graphdef),
        (state.trainable, frozen),
        [abstract(to_device(batch, mesh)) for batch in validation_blanks],
        "predictions",
    )

    # ---- steps ----
    bar = tqdm(total=total_steps, initial=done, unit="step", desc="train", disable=not is_first())
    rates = Throughput(read_config(config.model.checkpoint), mesh.devices.flatten().tolist())
    kept = -1 if latest is None else latest
    log = MetricsLog(
        run.path,
        kept,
        stream.steps_per_epoch,
        bar,
        rates=rates,
        contents=lambda step: stream.contents(step - 1),
    )
    trace = Profile(run.path / "profile", profile)
    saved_at, saved = time.monotonic(), done

    def request() -> int:
        """What this process would have all of them do."""
        late = time.monotonic() - saved_at > 60 * settings.checkpoint_minutes
        return STOP if stop.is_set() else SAVE if late else GO_ON

    asked = GO_ON
    others = alive(run.path, jax.process_index(), jax.process_count())
    with stop_signals() as stop, checkpoints, best, log, trace, bar, others, jax.transfer_guard("disallow"):
        if fitted:
            if total_steps:
                model_now = functools.partial(predict, state.trainable, frozen)
                logits_nk = predict_rows(validation, len(validation_ids), len(dataset.classes), model_now, mesh)
                losses = validation_losses(logits_nk, validation_nk, settings.entropy_weight)
                early["best_loss"] = np.array(losses["val_loss"])
            else:
                losses = validation_losses(fitted.logits_nk, fitted.targets_nk, settings.entropy_weight)
            log.write(0, **losses, **fitted.choice)
            if is_first():
                whom = "the validation speakers" if total_steps else "speakers left out"
                bar.write(f"readout: JS {losses['val_js']:.4f} (base 2) on {whom}", file=sys.stderr)
            best.save(0, {"learned": nnx.merge_state(state.trainable, statistics)})
        while done < total_steps and early["stale_epochs"] < settings.patience and asked != STOP:
            waits = time.monotonic()
            batch = next(batches)
            input_seconds = time.monotonic() - waits
            if not alone:
                batch = batch | asking(batch, request())
            with trace.step(done + 1):
                state, measured = step(state, frozen, to_device(batch, mesh, settings.microbatch))
            done += 1
            trace.after(done, measured)
            log.step(done, measured, input_seconds)
            epoch_ends = done % stream.steps_per_epoch == 0
            # What others ask arrives with the metrics, one step late; the step after a save still asks for that one.
            asked = request() if alone else log.request if done > saved + 1 else GO_ON
            if epoch_ends or asked:
                log.flush()  # a step that is not finite is never saved
            if epoch_ends:
                model_now = functools.partial(predict, state.trainable, frozen)
                logits_nk = predict_rows(validation, len(validation_ids), len(dataset.classes), model_now, mesh)
                losses = validation_losses(logits_nk, validation_nk, settings.entropy_weight)
                refuse_not_finite(losses["val_loss"], "the validation loss", done)
                log.write(done, **losses)
                improved = losses["val_loss"] < early["best_loss"]
                if improved:
                    best.save(done, {"learned": nnx.merge_state(state.trainable, statistics)})
                    best.wait()  # before a checkpoint that counts on it
                early = {
                    "best_loss": np.array(min(early["best_loss"], losses["val_loss"])),
                    "stale_epochs": np.array(0 if improved else early["stale_epochs"] + 1),
                }
                mark = "best so far" if improved else f"{early['stale_epochs']} since the best"
                epoch = done // stream.steps_per_epoch
                if is_first():
                    bar.write(f"epoch {epoch}: validation JS {losses['val_js']:.4f} (base 2), {mark}", file=sys.stderr)
            if epoch_ends or asked:
                log.flush()
                learned = {"state": state, "statistics": statistics, "early": early}
                checkpoints.save(done, {"learned": learned})
                saved_at, saved = time.monotonic(), done
                log.restart_clock()
        log.flush()
    if asked == STOP and done < total_steps:
        raise Stopped(
            f"stopped at step {done} of {total_steps} as asked; {run.path} is saved, continue it with --resume."
        )
    return run


def asking(batch: Batch, what: int) -> Batch:
    """What a process would have all of them do, as a part of the batch: it arrives with the metrics."""
    return {"request": np.full(len(batch["weight"]), what, np.int32)}


def pinned(config: Config) -> Config:
    """The settings with the commit that a hub id stands for today: a run goes on with the base it began with."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, checkpoint=pin(config.model.checkpoint)))


def dime_aug_examples(config: Config, dataset: Dataset, targets_nk: np.ndarray, plan_file: Path) -> list[Example]:
    """DiME-Aug's mixes for the training split, from the run's plan; the plan is made and stored where there is none."""
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
        found = jax.device_get(agreement(logits_nk, targets_nk.astype(np.float32), entropy_weight))
    return {name: float(value) for name, value in found.items()}
