"""The linear probe of a run's frozen audio tower: fitted once for all runs on the same dataset and base, and cached."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.evaluation.linear_probe import VERSION, choose_l2, expand, fit_probe, make_solver
from aer_jax.evaluation.predictions import human_distributions
from aer_jax.evaluation.projection import describe, gather, load_parts
from aer_jax.files.atomic import replace_text, user_cache
from aer_jax.files.content_hash import is_intact, seal
from aer_jax.files.json_text import parse_json
from aer_jax.training.distributed import fetch, is_first
from aer_jax.training.run import Run

log = logging.getLogger(__name__)
Features = Callable[[Dataset, Sequence[str]], Iterator[tuple[np.ndarray, np.ndarray]]]


def probe_predictions(run: Run, dataset: Dataset, split: str, features: Features) -> dict[str, list[float]]:
    """Predictions of the probe for each utterance of a split, from the cache or fitted now.

    It learns from the clips that a readout alone learns from, all of train and validation split, but always from human
    votes, with its penalty chosen on the validation split and without a temperature.

    Args:
        features: (dataset, ids) -> the tower's statistics, in blocks; see `FeatureBlocks`.
    """
    probs = read_probe(run, dataset, split)
    cached = np.array([probs.keys() >= set(dataset.splits[split])])
    if fetch(cached).all():  # in all processes, which compute features together
        return probs
    blocks = functools.partial(features, dataset)
    parts = [sorted(dataset.splits[part]) for part in ("train", "validation")]
    (train_nf, validation_nf), projection = load_parts(parts, blocks)
    if is_first():
        print(f"linear probe: {describe(sum(map(len, parts)), projection)}", file=sys.stderr)
    train_nk, validation_nk = (human_distributions(dataset, ids) for ids in parts)
    # What is evaluated must not be learned from, the validation split too.
    learn = choose_l2 if split == "validation" else fit_probe
    probe = expand(learn(train_nf, train_nk, validation_nf, validation_nk, make_solver(projection)), projection)
    ids = dataset.splits[split]
    probs = dict(zip(ids, gather(ids, blocks, probe).tolist(), strict=True))
    if is_first():
        _write(_places(run, dataset, split), json.dumps(seal({"l2": probe.l2, "probs": probs})) + "\n")
    return probs


def read_probe(run: Run, dataset: Dataset, split: str) -> dict[str, list[float]]:
    """The cached predictions by utterance; empty where there are none."""
    probs: dict[str, list[float]] = {}
    for path in _places(run, dataset, split):
        with suppress(OSError, ValueError, TypeError, KeyError):
            stored = parse_json(path.read_bytes())
            probs |= stored["probs"] if is_intact(stored) else {}
    return probs


def _places(run: Run, dataset: Dataset, split: str) -> list[Path]:
    depends_on = f"{VERSION} {run.environment['base']} {run.config.model.dtype} {run.config.data.max_seconds} "
    # dataset.json holds the hashes of audio, votes and splits.
    key = hashlib.sha256(depends_on.encode() + (dataset.path / "dataset.json").read_bytes()).hexdigest()
    name = f"linear_probe_{split}_{key[:16]}.json"
    return [dataset.path / name, user_cache() / name]


def _write(places: Sequence[Path], text: str) -> None:
    for path in places:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
            return
        except OSError as error:
            log.warning("%s cannot be written (%s)", path, error)
