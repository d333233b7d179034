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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from flax import nnx
from scipy.special import softmax
from tqdm import tqdm

from aer_jax.config import Config
from aer_jax.digests import is_intact, parse_json, seal
from aer_jax.errors import UserError
from aer_jax.evaluation.linear_probe import L2, fit, left_out, temperature
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.files import replace_text
from aer_jax.models.emotion_head import ReadoutHead
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training import heard
from aer_jax.training.alarm import refuse_features
from aer_jax.training.predictor import predict_rows
from aer_jax.training.processes import is_first
from aer_jax.training.step import model_batch
from aer_jax.training.targets import clip_weights

if TYPE_CHECKING:
    from aer_jax.data.batches import EvaluationBatches
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

MOST = 4096  # clips of a split that are fitted to, drawn where there are more: all their inputs lie in memory
TO_STANDARDISE = 256  # clips, enough for a few per cent
LEFT_OUT = "left_out.json"


class Clips(NamedTuple):
    """Inputs of the head, float32 [N, E], the distributions to predict from them [N, K], ids and speakers [N], and what
    each counts [N]."""

    inputs_ne: np.ndarray
    targets_nk: np.ndarray
    ids_n: np.ndarray
    speakers_n: np.ndarray
    weights_n: np.ndarray


class Fitted(NamedTuple):
    """What a fit says about itself.

    Attributes:
        ids_n, logits_nk, targets_nk: of all clips, by heads that have not heard their speakers.
        choice: penalty, temperature, and the divergence (base 2) of the same heads at temperature 1.
    """

    ids_n: np.ndarray
    logits_nk: np.ndarray
    targets_nk: np.ndarray
    choice: dict[str, float]


def begin(
    model: EmotionModel,
    config: Config,
    dataset: Dataset,
    prompt: PromptEncoder,
    evaluation: Callable[[Sequence[str]], EvaluationBatches],
    whole: Mapping[str, np.ndarray],
    mesh: jax.sharding.Mesh,
) -> Fitted | None:
    """Before the first step: fit the readout where the settings say so, else standardise it; in place.

    Args:
        evaluation: ids -> batches of these clips.
        whole: "train" and "validation" -> the distributions of the whole split.

    Returns:
        what the fit says of itself, None where there was none.
    """

    def inputs(ids: list[str], what: str) -> np.ndarray:
        def hear(ids: Sequence[str]) -> np.ndarray:
            batches = tqdm(evaluation(ids), desc=what, unit="batch", disable=not is_first())
            return predict_rows(batches, len(ids), sum(model.readout.sizes), make_inputs(model), mesh)

        if config.model.adapter:
            return hear(ids)
        inputs_ne = heard.once(config, dataset, prompt, ids, hear, reads=config.model.readout)
        refuse_features(inputs_ne, ids)
        return inputs_ne

    if not config.train.fit and config.train.epochs:
        ids = dataset.splits["train"]
        some_ids = [ids[i] for i in np.random.default_rng(config.seed).permutation(len(ids))[:TO_STANDARDISE]]
        standardise(model.readout, inputs(some_ids, "standardise"))
        return None
    clips = []
    for part in ("train",) if config.train.epochs else ("train", "validation"):  # else that one chooses the epoch
        some = np.random.default_rng(config.seed).permutation(len(whole[part]))[:MOST]
        ids = [dataset.splits[part][i] for i in some]
        speakers_n = np.array([dataset.utterances[id].speaker for id in ids])
        weights_n = clip_weights(dataset, ids, config.labels)
        clips.append(Clips(inputs(ids, f"readout, {part}"), whole[part][some], np.array(ids), speakers_n, weights_n))
    return fit_readout(model.readout, *clips)


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


def fit_readout(head: ReadoutHead, *splits: Clips) -> Fitted:
    """Fit `head`, in place, to all splits given; the temperature becomes part of its kernel and bias."""
    scale_e = np.asarray(head.scale_e)
    inputs_ne, targets_nk, ids_n, speakers_n, weights_n = map(np.concatenate, zip(*splits, strict=True))
    turns = functools.partial(tqdm, desc="fit the readout, speakers left out in turns", disable=not is_first())
    logits_lnk = left_out(inputs_ne, targets_nk, speakers_n, scale_e, weights_n, turns)
    tempered = [temperature(logits_nk, targets_nk) for logits_nk in logits_lnk]
    best = min(range(len(L2)), key=lambda i: tempered[i][1])
    warmth = tempered[best][0]
    assert head.linear.bias is not None
    (probe,) = fit(inputs_ne, targets_nk, (L2[best],), scale_e, weights_n)
    _put(head.mean, probe.mean_f)
    _put(head.deviation, probe.deviation_f)
    _put(head.linear.kernel, probe.kernel_fk / scale_e[:, None] / warmth)
    _put(head.linear.bias, probe.bias_k / warmth)
    plain = float(js_divergence(targets_nk, softmax(logits_lnk[best], axis=1)).mean())
    choice = {"readout_l2": L2[best], "temperature": warmth, "val_js_at_temperature_1": plain}
    return Fitted(ids_n, logits_lnk[best] / warmth, targets_nk, choice)


def keep_left_out(fitted: Fitted, folder: Path) -> None:
    """Write `left_out.json`: for each clip that the readout learned from, what heads without its speaker predict."""
    probs_nk = softmax(fitted.logits_nk, axis=1)
    kept = seal({"probs": dict(zip(fitted.ids_n.tolist(), probs_nk.tolist(), strict=True))})
    replace_text(folder / LEFT_OUT, json.dumps(kept) + "\n")


def left_out_of(folder: Path) -> dict[str, list[float]]:
    """What `keep_left_out` kept of the clips that a run's readout learned from; empty where it was not fitted.

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
