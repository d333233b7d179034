"""Calibration of the answers head on the votes: the run with `train.epochs=0`, its start with `train.fit`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import jax
import numpy as np
from tqdm import tqdm

from aer_jax.config import Config
from aer_jax.evaluation import calibration
from aer_jax.evaluation.projection import gather
from aer_jax.models.answers_head import AnswersHead
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training.batch_prediction import DeviceBatch, compile_features, predict_blocks
from aer_jax.training.distributed import is_first
from aer_jax.training.hooks.nonfinite import refuse_features
from aer_jax.training.readout import FitResult
from aer_jax.training.step import model_batch

if TYPE_CHECKING:
    from aer_jax.training.setup import Data


def log_likelihoods(model: EmotionModel, batch: DeviceBatch) -> jax.Array:
    """The labels' log-likelihoods as answers [rows, classes]."""
    assert isinstance(model.emotion_head, AnswersHead)
    return model.emotion_head.log_likelihoods(model.features(model_batch(batch)))


def calibrate(model: EmotionModel, config: Config, data: Data, mesh: jax.sharding.Mesh) -> FitResult:
    """Set temperature and bias of the head, in place.

    Without epochs they are fitted to train and validation split together, else to the training split.
    """
    splits = {"train": data.targets_nk} | ({} if config.train.epochs else {"validation": data.validation_nk})
    ids = [id for split in splits for id in data.dataset.splits[split]]
    targets_nk = np.concatenate(list(splits.values()))
    batches = tqdm(data.batches_of(ids), desc="answers to calibrate", unit="batch", disable=not is_first())
    scores_nk = gather(ids, lambda _: predict_blocks(batches, compile_features(model, log_likelihoods), mesh))
    refuse_features(scores_nk, ids)
    speakers_n = np.array([data.dataset.utterances[id].speaker for id in ids])
    weights_n = data.targets.weights(ids)
    fitted = calibration.calibrate(scores_nk, targets_nk, weights_n)
    head = model.emotion_head
    assert isinstance(head, AnswersHead)
    for variable, value in ((head.log_temperature, np.log([fitted.temperature])), (head.bias, fitted.bias_k)):
        variable.set_value(jax.device_put(np.asarray(value, np.float32), variable.sharding))
    if is_first():
        tqdm.write(f"answers: temperature {fitted.temperature:.2f}, fitted to {len(ids):,} clips", file=sys.stderr)
    logits_nk = calibration.calibrated_left_out(scores_nk, targets_nk, speakers_n, weights_n)
    return FitResult(np.array(ids), logits_nk, targets_nk, {"temperature": fitted.temperature})
