"""Linear readout fitted to frozen features: the whole run with `train.epochs=0`, its start with `train.fit`.

Logistic regression on the votes' distributions, in seconds and to its optimum: no learning rate and no number of steps.
A strong penalty finds the directions that carry to other speakers but leaves predictions too flat; a temperature, the
one of the lowest divergence, sharpens them. The two are chosen together by cross-validation over speakers. Without
epochs nothing else is chosen by the validation split, so the fit includes it.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from flax import nnx
from scipy.special import softmax
from tqdm import tqdm

from aer_jax.config import Config
from aer_jax.errors import UserError
from aer_jax.evaluation.linear_probe import L2, expand, left_out, make_solver, temperature
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.projection import Projection, describe, gather, load_parts
from aer_jax.files.atomic import replace_text
from aer_jax.files.content_hash import is_intact, seal
from aer_jax.files.json_text import parse_json
from aer_jax.models.emotion_head import ReadoutHead
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training.batch_prediction import compile_features, predict_blocks, readout_inputs
from aer_jax.training.distributed import is_first
from aer_jax.training.feature_cache import cached_features
from aer_jax.training.hooks.nonfinite import refuse_features

if TYPE_CHECKING:
    from aer_jax.training.setup import Data

TO_STANDARDISE = 256  # clips, enough for a few per cent
LEFT_OUT = "left_out.json"


class Clips(NamedTuple):
    """Inputs of the head or their coordinates, float32 [N, E], the distributions to predict from them [N, K], ids and
    speakers [N], and what each counts [N]."""

    inputs_ne: np.ndarray
    targets_nk: np.ndarray
    ids_n: np.ndarray
    speakers_n: np.ndarray
    weights_n: np.ndarray


class FitResult(NamedTuple):
    """What a fit reports.

    Attributes:
        ids_n, logits_nk, targets_nk: of all clips, by heads fitted without their speakers.
        choice: penalty, temperature, and the divergence (base 2) of the same heads at temperature 1.
    """

    ids_n: np.ndarray
    logits_nk: np.ndarray
    targets_nk: np.ndarray
    choice: dict[str, float]


def init_readout(model: EmotionModel, config: Config, data: Data, mesh: jax.sharding.Mesh) -> FitResult | None:
    """Before the first step: fit the readout where the settings say so, else standardise its inputs; in place.

    Returns:
        the fit's result, None where there was none.
    """
    inputs = functools.partial(_inputs, model, config, data, mesh)
    dataset = data.dataset
    if config.train.epochs and not config.train.fit:
        ids = dataset.splits["train"]
        some_ids = [ids[i] for i in np.random.default_rng(config.seed).permutation(len(ids))[:TO_STANDARDISE]]
        standardise(model.readout, gather(some_ids, inputs))
        return None
    targets = {"train": data.targets_nk, "validation": data.validation_nk}
    if config.train.epochs:
        del targets["validation"]  # it chooses the epoch
    # The order of the clips decides the last bits of a fit; this one was always that.
    order = {split: np.random.default_rng(config.seed).permutation(len(nk)) for split, nk in targets.items()}
    parts = [[dataset.splits[split][i] for i in order[split]] for split in targets]
    inputs_of_parts, projection = load_parts(parts, inputs, np.asarray(model.readout.scale_e))
    clips = [
        Clips(
            inputs_ne,
            targets[split][order[split]],
            np.array(ids),
            np.array([dataset.utterances[id].speaker for id in ids]),
            data.targets.weights(ids),
        )
        for split, ids, inputs_ne in zip(targets, parts, inputs_of_parts, strict=True)
    ]
    if is_first():
        tqdm.write(f"readout: {describe(sum(map(len, parts)), projection)}", file=sys.stderr)
    return fit_readout(model.readout, *clips, projection=projection)


def _inputs(
    model: EmotionModel, config: Config, data: Data, mesh: jax.sharding.Mesh, ids: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    def compute(ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        batches = tqdm(data.batches_of(ids), desc="features for the readout", unit="batch", disable=not is_first())
        return predict_blocks(batches, compile_features(model, readout_inputs), mesh)

    if config.model.adapter:
        yield from compute(ids)
        return
    sum_n1 = np.zeros((len(ids), 1))
    for position_b, rows_be in cached_features(
        config, data.dataset, data.prompt, ids, compute, reads=config.model.readout
    ):
        sum_n1[position_b, 0] = rows_be.sum(axis=1, dtype=float)
        yield position_b, rows_be
    refuse_features(sum_n1, ids)


def standardise(head: ReadoutHead, inputs_ne: np.ndarray) -> None:
    """Bring the inputs of `head`, in place, to mean 0 and deviation 1 over some of the training clips."""
    _set(head.mean, inputs_ne.mean(axis=0))
    _set(head.deviation, inputs_ne.std(axis=0) + 1e-5)


def fit_readout(head: ReadoutHead, *splits: Clips, projection: Projection | None = None) -> FitResult:
    """Fit `head`, in place, to all splits given; the temperature becomes part of its kernel and bias.

    Args:
        projection: with which the inputs of the clips became coordinates; None where they are the inputs themselves.
    """
    scale_e = np.asarray(head.scale_e)
    solver = make_solver(projection, scale_e)
    inputs_ne, targets_nk, ids_n, speakers_n, weights_n = map(np.concatenate, zip(*splits, strict=True))
    folds = functools.partial(tqdm, desc="fit the readout, speakers left out in turns", disable=not is_first())
    logits_lnk = left_out(inputs_ne, targets_nk, speakers_n, weights_n, folds, solver)
    tempered = [temperature(logits_nk, targets_nk) for logits_nk in logits_lnk]
    best = min(range(len(L2)), key=lambda i: tempered[i][1])
    best_temperature = tempered[best][0]
    probe = expand(solver(inputs_ne, targets_nk, (L2[best],), weights_n)[0], projection)
    assert head.linear.bias is not None
    _set(head.mean, probe.mean_f)
    _set(head.deviation, probe.deviation_f)
    _set(head.linear.kernel, probe.kernel_fk / scale_e[:, None] / best_temperature)
    _set(head.linear.bias, probe.bias_k / best_temperature)
    untempered_js = float(js_divergence(targets_nk, softmax(logits_lnk[best], axis=1)).mean())
    choice = {"readout_l2": L2[best], "temperature": best_temperature, "val_js_at_temperature_1": untempered_js}
    return FitResult(ids_n, logits_lnk[best] / best_temperature, targets_nk, choice)


def save_left_out(fitted: FitResult, folder: Path) -> None:
    """Write `left_out.json`: for each clip that the readout learned from, what heads without its speaker predict."""
    probs_nk = softmax(fitted.logits_nk, axis=1)
    kept = seal({"probs": dict(zip(fitted.ids_n.tolist(), probs_nk.tolist(), strict=True))})
    replace_text(folder / LEFT_OUT, json.dumps(kept) + "\n")


def load_left_out(folder: Path) -> dict[str, list[float]]:
    """The predictions that `save_left_out` wrote; empty where the readout was not fitted.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / LEFT_OUT
    if not path.exists():
        return {}
    try:
        stored = parse_json(path.read_bytes())
        if is_intact(stored) is False:
            raise ValueError("it is not what was written")
        probs = stored["probs"] if is_intact(stored) else stored  # older versions kept the shares alone
        return {id: [float(share) for share in shares] for id, shares in probs.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"cannot read {path} ({error}); copy the run again.") from None


def _set(variable: nnx.Variable, value: np.ndarray) -> None:
    variable.set_value(jax.device_put(np.asarray(value, np.float32), variable.sharding))
