"""What the readout reads of a clip before anything is learned: heard once for all runs of a user.

It depends on the base, on the audio and, where the text is read, on the prompt. So folds of a corpus, sources of
labels, seeds, the linear probe and a second start share it: a file a clip, beside the compiled programs.
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

from aer_jax import models
from aer_jax.base import lengths
from aer_jax.base.fingerprint import fingerprint
from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.config import Config
from aer_jax.evaluation.projection import FeatureBlocks
from aer_jax.files.atomic import user_cache
from aer_jax.files.cache import load_array, save_array

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset
    from aer_jax.data.prompt import PromptEncoder

MOST = 2 * 2**30  # bytes that are kept; what was written first goes first
BLOCK = 512  # clips that are read at a time


def blocks(
    config: Config,
    dataset: Dataset,
    prompt: PromptEncoder,
    ids: Sequence[str],
    compute: FeatureBlocks,
    *,
    reads: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions among `ids` [b] and features [b, E] in blocks; `compute` is asked for clips that are not cached.

    Args:
        config: of the run; its base must be as it was published, without adapters that have learned something.
        dataset, prompt, ids: the clips.
        compute: what it gives depends on nothing else, but for the rounding by batches of different sizes.
        reads: "audio" or "audio+text", as `model.readout`.
    """
    # Several processes would have to agree on what each of them finds; `compute` refuses to make batches of nothing.
    if jax.process_count() > 1 or not ids:
        yield from compute(ids)
        return
    folder = _folder(config, reads)
    most = round(config.data.max_seconds * SAMPLE_RATE)

    def file_of(id: str) -> Path:
        audio_t = dataset.audio(id)[:most]
        digest = hashlib.sha256(audio_t.tobytes())
        if reads != "audio":
            utterance = dataset.utterances[id]
            digest.update(prompt.encode(utterance.transcript, utterance.speaker, len(audio_t)).tobytes())
        return folder / f"{digest.hexdigest()}.safetensors"

    def load(i: int) -> tuple[int, Path, np.ndarray | None]:
        file = file_of(ids[i])
        return i, file, _load(file)

    missing: dict[int, Path] = {}
    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(ids), desc="cached features", unit="clip", delay=2, leave=False) as bar,
    ):
        for start in range(0, len(ids), BLOCK):
            loaded = list(pool.map(load, range(start, min(start + BLOCK, len(ids)))))
            missing |= {i: file for i, file, row_e in loaded if row_e is None}
            known = {i: row_e for i, _, row_e in loaded if row_e is not None}
            bar.update(len(loaded))
            if known:
                yield np.array(list(known)), np.stack(list(known.values()))
    if missing:
        where = np.array(list(missing))
        for position_b, rows_be in compute([ids[i] for i in where]):
            if rows_be[0].nbytes * len(missing) <= MOST:
                _keep(dict(zip((missing[i] for i in where[position_b]), rows_be, strict=True)))
            yield where[position_b], rows_be
        if rows_be[0].nbytes * len(missing) <= MOST:
            _forget_oldest(user_cache() / "heard")


def _folder(config: Config, reads: str) -> Path:
    """By all that the states of any clip depend on, our own code included."""
    code = [Path(lengths.__file__), *sorted(Path(models.__path__[0]).rglob("*.py"))]
    depends_on = {
        "base": [fingerprint(config.model.checkpoint), config.model.dtype],
        "reads": reads,
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
        "computed by": [
            version("jax"),
            jax.devices()[0].device_kind,
            jax.device_count(),
            dataclasses.astuple(config.mesh),
        ],
    }
    return user_cache() / "heard" / hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


def _load(file: Path) -> np.ndarray | None:
    """None where there is no such file, or a damaged one."""
    try:
        return load_array(file)[0]
    except (OSError, ValueError):
        return None


def _keep(rows: dict[Path, np.ndarray]) -> None:
    """Without room, or the right to write, nothing is kept: no run needs it."""
    with contextlib.suppress(OSError):
        for file, row_e in rows.items():
            save_array(file, row_e)


def _forget_oldest(folder: Path) -> None:
    with contextlib.suppress(OSError):
        known = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in folder.glob("*/*.safetensors"))
        total = sum(size for _, size, _ in known)
        for _, size, file in known:
            if total <= MOST:
                return
            file.unlink(missing_ok=True)
            total -= size
