"""The readout head alone, fitted to what the frozen base makes of the clips: what `train.epochs=0` does.

The divergence of a linear map of fixed inputs, with a penalty on its kernel, is minimised in seconds and to its
optimum: no learning rate, no number of steps, no luck. Nothing else is chosen by the validation split, so its speakers
are learned from too, and the penalty is chosen on speakers of either split that are left out in turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from aer_jax.evaluation.linear_probe import cross_validated, jensen_shannon
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training.processes import fetch
from aer_jax.training.step import model_batch, to_device

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset

# Clips that are fitted to and chosen by, drawn where there are more: all their inputs lie in memory.
MOST = {"train": 4096, "validation": 1024}


class Clips(NamedTuple):
    """Inputs of the head, float32 [N, E], the distributions to predict from them [N, K], and who speaks [N]."""

    inputs_ne: np.ndarray
    targets_nk: np.ndarray
    speakers_n: np.ndarray


class Fitted(NamedTuple):
    """What a fit says about itself: logits of clips whose speakers it has not heard, their targets, its penalty."""

    logits_nk: np.ndarray
    targets_nk: np.ndarray
    l2: float


def some_clips(
    dataset: Dataset, targets_nk: np.ndarray, validation_nk: np.ndarray, seed: int
) -> dict[str, tuple[list[str], np.ndarray]]:
    """Ids and distributions of at most `MOST` clips of each split, given the distributions of whole splits."""
    found = {}
    for part, whole_nk in (("train", targets_nk), ("validation", validation_nk)):
        some = np.random.default_rng(seed).permutation(len(whole_nk))[: MOST[part]]
        found[part] = ([dataset.splits[part][i] for i in some], whole_nk[some])
    return found


def hear(
    model: EmotionModel,
    batches: Iterable[Mapping[str, Any]],
    mesh: jax.sharding.Mesh,
    targets_nk: np.ndarray,
    speakers: Sequence[str],
) -> Clips:
    """What the head reads of each clip; targets and speakers are in the order that the batches' `row` counts in."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def inputs(state, batch):
        model = nnx.merge(graphdef, state)
        return model.emotion_head.inputs(model.features(model_batch(batch)))

    rows, found = [], []
    for batch in batches:
        laid = to_device(batch, mesh)
        row_b, inputs_be = fetch((laid["row"], inputs(state, laid)))
        rows.append(row_b[row_b >= 0])
        found.append(inputs_be[row_b >= 0])
    row_n = np.concatenate(rows)
    return Clips(np.concatenate(found), targets_nk[row_n], np.asarray(speakers)[row_n])


def fit_readout(model: EmotionModel, train: Clips, validation: Clips) -> Fitted:
    """Fit the head, in place, to both splits; the penalty is chosen on speakers left out in turns."""
    head = model.emotion_head
    scale_e = np.asarray(head.scale_e)
    inputs_ne, targets_nk, speakers_n = (np.concatenate(parts) for parts in zip(train, validation, strict=True))
    probe, logits_nk = cross_validated(inputs_ne, targets_nk, speakers_n, jensen_shannon, scale_e)
    for variable, value in (
        (head.mean, probe.mean_f),
        (head.deviation, probe.deviation_f),
        (head.linear.kernel, probe.kernel_fk / scale_e[:, None]),
        (head.linear.bias, probe.bias_k),
    ):
        variable.set_value(jax.device_put(np.asarray(value, np.float32), variable.sharding))
    return Fitted(logits_nk, targets_nk, probe.l2)
