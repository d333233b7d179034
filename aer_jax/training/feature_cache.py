"""Cache of frozen features, one file per clip, shared by all runs of a user.

Features depend on the base, on the audio and, where the text is read, on the prompt. So folds of a corpus, sources of
labels, seeds, the linear probe and a second start share them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from tqdm import tqdm

from aer_jax.base.fingerprint import fingerprint
from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.config import Config
from aer_jax.evaluation.projection import FeatureBlocks
from aer_jax.files.atomic import user_cache
from aer_jax.files.cache import load_array, save_array

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

VERSION = 1  # to be raised when a change of `models` changes a frozen model's features
MAX_BYTES = 2 * 2**30  # the oldest files beyond it are deleted
BLOCK = 512  # clips per read


def cached_features(
    config: Config,
    dataset: Dataset,
    prompt: PromptEncoder,
    ids: Sequence[str],
    compute: FeatureBlocks,
    *,
    reads: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions among `ids` [b] and features [b, E] in blocks; `compute` is called for clips that are not cached.

    Args:
        config: of the run; its base must be as it was published, without trained adapters.
        dataset, prompt, ids: the clips.
        compute: its features depend on nothing else, but for the rounding by batches of different sizes.
        reads: "audio" or "audio+text", as `model.readout`.
    """
    # Several processes would have to agree on what each of them finds; `compute` refuses to make batches of nothing.
    if jax.process_count() > 1 or not ids:
        yield from compute(ids)
        return
    folder = _folder(config, reads)
    max_samples = round(config.data.max_seconds * SAMPLE_RATE)

    def load(i: int) -> tuple[int, Path, np.ndarray | None]:
        audio_t = dataset.audio(ids[i])[:max_samples]
        digest = hashlib.sha256(audio_t.tobytes())
        if reads != "audio":
            utterance = dataset.utterances[ids[i]]
            digest.update(prompt.encode(utterance.transcript, utterance.speaker, len(audio_t)).tobytes())
        file = folder / f"{digest.hexdigest()}.safetensors"
        return i, file, _load(file)

    missing: dict[int, Path] = {}
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(ids), desc="cached features", unit="clip", delay=2, leave=False) as bar,
    ):
        for start in range(0, len(ids), BLOCK):
            loaded = list(pool.map(load, range(start, min(start + BLOCK, len(ids)))))
            missing |= {i: file for i, file, row_e in loaded if row_e is None}
            cached = {i: row_e for i, _, row_e in loaded if row_e is not None}
            bar.update(len(loaded))
            if cached:
                yield np.array(list(cached)), np.stack(list(cached.values()))
    if missing:
        yield from _compute_and_save(ids, missing, compute)


def _compute_and_save(
    ids: Sequence[str], missing: dict[int, Path], compute: FeatureBlocks
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    position_n = np.array(list(missing))
    fits = False
    for index_b, rows_be in compute([ids[i] for i in position_n]):
        fits = rows_be[0].nbytes * len(missing) <= MAX_BYTES
        if fits:
            with contextlib.suppress(OSError):  # a full disk or a folder that is not ours: no run needs the cache
                for i, row_e in zip(position_n[index_b], rows_be, strict=True):
                    save_array(missing[i], row_e)
        yield position_n[index_b], rows_be
    if fits:
        _delete_oldest(user_cache() / "features")


def _folder(config: Config, reads: str) -> Path:
    depends_on = {
        "base": [fingerprint(config.model.checkpoint), config.model.dtype],
        "reads": reads,
        "code": [VERSION, version("aer-jax")],
        "computed by": [
            version("jax"),
            jax.devices()[0].device_kind,
            jax.device_count(),
            dataclasses.astuple(config.mesh),
        ],
    }
    return user_cache() / "features" / hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


def _load(file: Path) -> np.ndarray | None:
    try:
        return load_array(file)[0]
    except (OSError, ValueError):
        return None


def _delete_oldest(folder: Path) -> None:
    with contextlib.suppress(OSError):
        files = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in folder.glob("*/*.safetensors"))
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total <= MAX_BYTES:
                return
            file.unlink(missing_ok=True)
            total -= size
