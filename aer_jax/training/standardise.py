"""What the readout sees of a clip, brought to mean 0 and deviation 1 over some of the training clips.

Before anything is learned this depends on the base, the prompt and the clips alone. So it is kept beside the compiled
programs, and the next run on the same ones starts without hearing them again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from aer_jax import data, models
from aer_jax.config import Config
from aer_jax.files import user_cache
from aer_jax.models.emotion_model import EmotionModel
from aer_jax.training.identity import identities
from aer_jax.training.processes import fetch
from aer_jax.training.step import model_batch, to_device

CLIPS = 256  # enough for a few per cent


class Moments(NamedTuple):
    """Mean and deviation of each input of the readout, float32 [E]."""

    mean_e: np.ndarray
    deviation_e: np.ndarray


def put_into(model: EmotionModel, moments: Moments) -> None:
    """Standardise the readout by them, in place."""
    head = model.readout
    for variable, value in zip((head.mean, head.deviation), moments, strict=True):
        variable.set_value(jax.device_put(value, variable.sharding))


def read_by_head(
    model: EmotionModel, batches: Iterable[Mapping[str, Any]], mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and weight [N] of every clip of `batches`, and the inputs of the readout [N, E]; without the fillers."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def inputs(state, batch):
        model = nnx.merge(graphdef, state)
        return model.readout.inputs(model.features(model_batch(batch)))

    heard = []
    for batch in batches:
        laid = to_device(batch, mesh)
        row_b, weight_b, inputs_be = fetch((laid["row"], laid["weight"], inputs(state, laid)))
        heard.append([array[row_b >= 0] for array in (row_b, weight_b, inputs_be)])
    row_n, weight_n, inputs_ne = (np.concatenate(arrays) for arrays in zip(*heard, strict=True))
    return row_n, weight_n, inputs_ne


def measure(model: EmotionModel, batches: Iterable[Mapping[str, Any]], mesh: jax.sharding.Mesh) -> Moments:
    """Of the readout's inputs over the clips of `batches`."""
    _, _, inputs_ne = read_by_head(model, batches, mesh)
    return Moments(inputs_ne.mean(axis=0), inputs_ne.std(axis=0) + 1e-5)


def kept(file: Path | None, inputs: int, make: Callable[[], Moments]) -> Moments:
    """The moments in `file`, of so many inputs; made, and written there, where it has none or is damaged."""
    if file is None:
        return make()
    try:
        found = Moments(**load_file(file))
        if found.mean_e.shape == found.deviation_e.shape == (inputs,):
            return found
    except (OSError, SafetensorError, TypeError):
        pass
    found = make()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        save_file(found._asdict(), partial)
        partial.replace(file)
    except OSError:
        pass  # no room, or no right to write: the run needs no such file
    return found


def file_for(config: Config, ids: Sequence[str]) -> Path | None:
    """Where the moments over these clips are kept: by everything that they depend on, our own code included.

    None where there is nothing to keep: with adapters that have learned something, and where several processes would
    have to agree on what each of them finds.
    """
    if config.model.adapter or jax.process_count() > 1:
        return None
    code = sorted(path for package in (models, data) for path in Path(package.__path__[0]).glob("*.py"))
    depends_on = {
        "base and data": identities(config),
        "readout": [config.model.readout, config.model.dtype],
        "prompt": [config.data.transcript, config.data.speaker, config.data.max_seconds],
        "clips": list(ids),
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
        "computed by": [
            version("jax"),
            jax.devices()[0].device_kind,
            jax.device_count(),
            dataclasses.astuple(config.mesh),
        ],
        "in batches of": [config.train.microbatch, config.data.shapes],  # which round differently
    }
    key = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()
    return user_cache() / "standardised" / f"{key}.safetensors"
