"""The readout head alone, fitted to what the frozen base makes of the clips: all of a run with `train.epochs=0`, and
the start of one with `train.fit`.

Logistic regression on the votes' distributions, in seconds and to its optimum: no learning rate, no number of steps, no
luck. A strong penalty finds the directions that carry to other speakers, and leaves the predictions too flat; a
temperature, the one that has the lowest divergence, makes them sharp again. The two are chosen together, on speakers
that are left out in turns. Without epochs nothing else is chosen by the validation split, so its speakers are learned
from too.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from flax import nnx
from scipy.special import softmax
from tqdm import tqdm

from aer_jax.config import Config
from aer_jax.errors import UserError
from aer_jax.evaluation.linear_probe import L2, expand, fit, fit_coordinates, left_out, temperature
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.projection import Projection, gather, load_parts, sentence
from aer_jax.files.atomic import replace_text
from aer_jax.files.content_hash import is_intact, seal
from aer_jax.files.json_text import parse_json
from aer_jax.models.emotion_head import ReadoutHead
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training import feature_cache as heard
from aer_jax.training.distributed import is_first
from aer_jax.training.hooks.nonfinite import refuse_features
from aer_jax.training.predictor import predict_blocks
from aer_jax.training.step import model_batch
from aer_jax.training.targets import clip_weights

if TYPE_CHECKING:
    from aer_jax.data.batching.batches import EvaluationBatches
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

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
    """What a fit says about itself.

    Attributes:
        ids_n, logits_nk, targets_nk: of all clips, by heads that have not heard their speakers.
        choice: penalty, temperature, and the divergence (base 2) of the same heads at temperature 1.
    """

    ids_n: np.ndarray
    logits_nk: np.ndarray
    targets_nk: np.ndarray
    choice: dict[str, float]


def init_readout(
    model: EmotionModel,
    config: Config,
    dataset: Dataset,
    prompt: PromptEncoder,
    evaluation: Callable[[Sequence[str]], EvaluationBatches],
    whole: Mapping[str, np.ndarray],
    mesh: jax.sharding.Mesh,
) -> FitResult | None:
    """Before the first step: fit the readout where the settings say so, else standardise it; in place.

    Args:
        evaluation: ids -> batches of these clips.
        whole: "train" and "validation" -> the distributions of the whole split.

    Returns:
        what the fit says of itself, None where there was none.
    """

    def compute(ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        batches = tqdm(evaluation(ids), desc="features for the readout", unit="batch", disable=not is_first())
        return predict_blocks(batches, make_inputs(model), mesh)

    def inputs(ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if config.model.adapter:
            yield from compute(ids)
            return
        sum_n1 = np.zeros((len(ids), 1))
        for position_b, rows_be in heard.blocks(config, dataset, prompt, ids, compute, reads=config.model.readout):
            sum_n1[position_b, 0] = rows_be.sum(axis=1, dtype=float)
            yield position_b, rows_be
        refuse_features(sum_n1, ids)

    if not config.train.fit and config.train.epochs:
        ids = dataset.splits["train"]
        some_ids = [ids[i] for i in np.random.default_rng(config.seed).permutation(len(ids))[:TO_STANDARDISE]]
        standardise(model.readout, gather(some_ids, inputs))
        return None
    names = ("train",) if config.train.epochs else ("train", "validation")  # else that one chooses the epoch
    # The order of the clips decides the last bits of a fit; this one was always that.
    order = {name: np.random.default_rng(config.seed).permutation(len(whole[name])) for name in names}
    parts = [[dataset.splits[name][i] for i in order[name]] for name in names]
    rows, projection = load_parts(parts, inputs, np.asarray(model.readout.scale_e))
    clips = []
    for name, ids, inputs_ne in zip(names, parts, rows, strict=True):
        speakers_n = np.array([dataset.utterances[id].speaker for id in ids])
        weights_n = clip_weights(dataset, ids, config.labels)
        clips.append(Clips(inputs_ne, whole[name][order[name]], np.array(ids), speakers_n, weights_n))
    if is_first():
        tqdm.write(f"readout: {sentence(sum(map(len, parts)), projection)}", file=sys.stderr)
    return fit_readout(model.readout, *clips, projection=projection)


def make_inputs(model: EmotionModel) -> Callable[[dict[str, jax.Array]], jax.Array]:
    """The compiled (batch [rows, ...]) -> what the readout reads of each row [rows, E], by the model as it is now."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def inputs(state: nnx.State, batch: dict[str, jax.Array]) -> jax.Array:
        model = nnx.merge(graphdef, state)
        return model.readout.inputs(model.features(model_batch(batch)))

    return lambda batch: inputs(state, batch)


def standardise(head: ReadoutHead, inputs_ne: np.ndarray) -> None:
    """Bring the inputs of `head`, in place, to mean 0 and deviation 1 over some of the training clips."""
    _put(head.mean, inputs_ne.mean(axis=0))
    _put(head.deviation, inputs_ne.std(axis=0) + 1e-5)


def fit_readout(head: ReadoutHead, *splits: Clips, projection: Projection | None = None) -> FitResult:
    """Fit `head`, in place, to all splits given; the temperature becomes part of its kernel and bias.

    Args:
        projection: with which the inputs of the clips became coordinates; None where they are the inputs themselves.
    """
    scale_e = np.asarray(head.scale_e)
    solver = functools.partial(fit, scale_f=scale_e) if projection is None else fit_coordinates
    inputs_ne, targets_nk, ids_n, speakers_n, weights_n = map(np.concatenate, zip(*splits, strict=True))
    turns = functools.partial(tqdm, desc="fit the readout, speakers left out in turns", disable=not is_first())
    logits_lnk = left_out(inputs_ne, targets_nk, speakers_n, weights_n, turns, solver)
    tempered = [temperature(logits_nk, targets_nk) for logits_nk in logits_lnk]
    best = min(range(len(L2)), key=lambda i: tempered[i][1])
    warmth = tempered[best][0]
    assert head.linear.bias is not None
    (probe,) = solver(inputs_ne, targets_nk, (L2[best],), weights_n)
    if projection is not None:
        probe = expand(probe, projection)
    _put(head.mean, probe.mean_f)
    _put(head.deviation, probe.deviation_f)
    _put(head.linear.kernel, probe.kernel_fk / scale_e[:, None] / warmth)
    _put(head.linear.bias, probe.bias_k / warmth)
    plain = float(js_divergence(targets_nk, softmax(logits_lnk[best], axis=1)).mean())
    choice = {"readout_l2": L2[best], "temperature": warmth, "val_js_at_temperature_1": plain}
    return FitResult(ids_n, logits_lnk[best] / warmth, targets_nk, choice)


def save_left_out(fitted: FitResult, folder: Path) -> None:
    """Write `left_out.json`: for each clip that the readout learned from, what heads without its speaker predict."""
    probs_nk = softmax(fitted.logits_nk, axis=1)
    kept = seal({"probs": dict(zip(fitted.ids_n.tolist(), probs_nk.tolist(), strict=True))})
    replace_text(folder / LEFT_OUT, json.dumps(kept) + "\n")


def load_left_out(folder: Path) -> dict[str, list[float]]:
    """What `save_left_out` kept of the clips that a run's readout learned from; empty where it was not fitted.

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


def _put(variable: nnx.Variable, value: np.ndarray) -> None:
    variable.set_value(jax.device_put(np.asarray(value, np.float32), variable.sharding))
