"""Features by which DiME-Aug (arXiv 2601.14620) finds neighbours: 72 of sound, 10 of text.

The order of the 82, all at 16 kHz with librosa's defaults, mean and standard deviation over time:

    0..25   13 MFCC, means then deviations
    26..49  12 chroma of the STFT, means then deviations
    50..63  7 bands of spectral contrast, means then deviations
    64..71  mean and deviation of zero-crossing rate, roll-off, centroid, RMS
    72..73  length of the text in characters and in words
    74..77  how often ! ? . , occur
    78..79  vowels and consonants, as shares of the characters
    80..81  mean word length in characters; share of upper-case characters
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import librosa
import numpy as np
from tqdm import tqdm

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.files.atomic import user_cache
from aer_jax.files.cache import load_array, save_array
from aer_jax.files.content_hash import file_sha256
from aer_jax.labels.votes import Votes

if TYPE_CHECKING:
    from aer_jax.data.dataset import Dataset

FEATURES = 82
CACHE = "dime_features.safetensors"
# Changes whenever the numbers would: our own order or definition, or librosa's.
VERSION = f"1, librosa {version('librosa')}"
# Clips a task; below some of these, starting processes takes longer than the work.
CHUNK, SERIAL = 32, 1024
# A killed run loses at most so much of the work.
SAVE_SECONDS = 60.0

log = logging.getLogger(__name__)


def utterance_features(audio_t: np.ndarray, transcript: str) -> np.ndarray:
    """The features of one clip, in the order of this module's docstring.

    Args:
        audio_t: float32 [samples] at 16 kHz.
        transcript: the words, "" where unknown.

    Returns:
        float64 [82], finite.
    """
    return np.concatenate([_sound(audio_t), _text(transcript)])


def _sound(audio_t: np.ndarray) -> np.ndarray:
    y, sr = audio_t, SAMPLE_RATE
    with warnings.catch_warnings():
        # A clip shorter than librosa's frame is zero-padded to one frame, and a toneless one has no tuning:
        # both fine.
        warnings.filterwarnings("ignore", message="n_fft=|Trying to estimate tuning")
        # One transform serves all: the numbers are the same, bit for bit, as where each is given the waveform.
        size = np.abs(librosa.stft(y))
        power = size**2
        mel = librosa.feature.melspectrogram(S=power, sr=sr)
        curves = [
            librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=13),
            librosa.feature.chroma_stft(S=power, sr=sr),
            librosa.feature.spectral_contrast(S=size, sr=sr),
            librosa.feature.zero_crossing_rate(y),
            librosa.feature.spectral_rolloff(S=size, sr=sr),
            librosa.feature.spectral_centroid(S=size, sr=sr),
            librosa.feature.rms(y=y),
        ]
    means_and_deviations = [part for c in curves for part in (c.mean(axis=1, dtype=float), c.std(axis=1, dtype=float))]
    return np.concatenate(means_and_deviations)


def _text(transcript: str) -> np.ndarray:
    words = transcript.split()
    characters = max(len(transcript), 1)
    letters = sum(c.isalpha() for c in transcript)
    vowels = sum(c in "aeiou" for c in transcript.lower())
    return np.array(
        [
            len(transcript),
            len(words),
            *(transcript.count(mark) for mark in "!?.,"),
            vowels / characters,
            (letters - vowels) / characters,
            sum(map(len, words)) / max(len(words), 1),
            sum(c.isupper() for c in transcript) / characters,
        ],
        np.float64,
    )


def features(dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
    """Features of many clips: from the cache where they are known, else computed in parallel.

    The cache is `dime_features.safetensors` in the dataset's directory, or in the user's cache where that cannot be
    written. It knows which dataset it was made from, grows while the work goes on, and several runs may share it.

    Args:
        dataset: where audio and transcripts come from.
        ids: utterances.

    Returns:
        float64 [len(ids), 82].
    """
    cache = _Cache(Path(dataset.path))
    known = cache.read()
    missing = [id for id in dict.fromkeys(ids) if id not in known]
    if missing:
        # One by itself: librosa's compiled functions are cached on disk, and of processes that write them at the same
        # time one may crash.
        known[missing[0]] = _chunk_features(_part(dataset, missing[:1]))[0]
        chunks = [missing[i : i + CHUNK] for i in range(1, len(missing), CHUNK)]
        jobs = 1 if len(missing) < SERIAL else -1
        results = joblib.Parallel(n_jobs=jobs, return_as="generator")(
            joblib.delayed(_chunk_features)(_part(dataset, chunk)) for chunk in chunks
        )
        saved_at = time.monotonic()
        with tqdm(total=len(missing), initial=1, desc="DiME-Aug features", unit="clip", delay=2) as bar:
            for chunk, features_nf in zip(chunks, results, strict=True):
                known.update(zip(chunk, features_nf, strict=True))
                bar.update(len(chunk))
                if time.monotonic() - saved_at > SAVE_SECONDS:
                    cache.write(known)
                    saved_at = time.monotonic()
        cache.write(known)
    return np.array([known[id] for id in ids], np.float64).reshape(len(ids), FEATURES)


def _part(dataset: Dataset, ids: list[str]) -> Dataset:
    """The dataset with these utterances alone, so that little is sent to a worker process."""
    return dataclasses.replace(dataset, utterances={id: dataset.utterances[id] for id in ids}, votes=Votes(), splits={})


def _chunk_features(dataset: Dataset) -> np.ndarray:
    return np.stack([utterance_features(dataset.audio(id), u.transcript) for id, u in dataset.utterances.items()])


class _Cache:
    """Features by utterance, in the first of two places that can be written."""

    def __init__(self, dataset: Path):
        # dataset.json holds the hashes of audio and transcripts.
        self._dataset = file_sha256(dataset / "dataset.json")
        self._places = [dataset / CACHE, user_cache() / f"{self._dataset[:16]}_{CACHE}"]

    def read(self) -> dict[str, np.ndarray]:
        known: dict[str, np.ndarray] = {}
        for path in self._places:
            try:
                known |= self._read(path)
            except ValueError as error:
                log.warning("%s %s; the features are computed again.", path, error)
        return known

    def write(self, known: dict[str, np.ndarray]) -> None:
        for path in self._places:
            # Another run may have added its own since; what both add in the same moment is computed again.
            with contextlib.suppress(ValueError):
                known = self._read(path) | known
            about = {"version": VERSION, "dataset": self._dataset, "ids": json.dumps(list(known))}
            try:
                save_array(path, np.stack(list(known.values())), about)
                return
            except OSError as error:
                why = error
        log.warning("%s cannot be written (%s); the features are not kept.", path, why)

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        if not path.exists():
            return {}
        try:
            features_nf, about = load_array(path)
            ids = json.loads(about.get("ids", "[]"))
        except OSError as error:
            raise ValueError(f"cannot be read ({error})") from None
        if about.get("version") != VERSION or features_nf.shape != (len(ids), FEATURES):
            raise ValueError(f"does not fit (it is of version {about.get('version')})")
        if about.get("dataset") != self._dataset:
            raise ValueError("was made from another dataset")
        return dict(zip(ids, features_nf, strict=True))
