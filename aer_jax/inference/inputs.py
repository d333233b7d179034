"""Inputs of `Model.predict` as sources: paths, bytes, samples, and rows of tables that hold these."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.corpora.base import Waveform
from aer_jax.corpora.tables.columns import choose
from aer_jax.data.audio.bad_audio import BadAudio, check_rate
from aer_jax.data.audio.read import mono
from aer_jax.errors import UserError
from aer_jax.inference.sources import Source, find_audio

# One recording: a file by its path, the bytes of one, samples, or a dictionary that holds one of these.
Audio: TypeAlias = str | Path | bytes | np.ndarray | tuple[np.ndarray, int] | Mapping[str, Any]
_MOST_CHANNELS = 64
_KINDS = (
    "a path, the bytes of a file, an array of samples with rate=, (samples, rate), or a dictionary with a path or with "
    '"array" and "sampling_rate"'
)
_RATE_ADVICE = f"say how many samples a second, for instance rate={SAMPLE_RATE}"
_RATES = ("sampling_rate", "sample_rate", "rate")


def is_many(audio: Any) -> bool:
    """Whether `audio` is several recordings: a list, a table or another iterable."""
    if isinstance(audio, np.ndarray):
        return audio.dtype.kind in "OUS"  # paths
    if isinstance(audio, str | Path | bytes | bytearray | memoryview | Mapping) or _is_pair(audio):
        return False
    if hasattr(audio, "read"):  # an open file, whose lines are no recordings
        return False
    return hasattr(audio, "iterrows") or (isinstance(audio, Iterable) and not _is_tensor(audio))


def read_inputs(audio: Any, rate: int | None, transcript: str | Sequence[str], skipped: Counter[str]) -> list[Source]:
    """Sources of what `predict` was given.

    Args:
        audio: one recording, or several where `is_many`; a folder among several stands for its audio files.
        rate: of samples that come without one, in Hz.
        transcript: the words of all, or one for each.
        skipped: counts the files of folders that are no audio, by ending.

    Raises:
        UserError: there is no rate for samples, a folder holds no audio, or transcripts do not match.
    """
    many = is_many(audio)
    if many:
        # A table of pandas is gone through by rows, not by the names of its columns.
        audio = audio.to_dict("records") if hasattr(audio, "iterrows") else list(audio)
        if audio and all(isinstance(item, int | float | np.number) for item in audio):
            raise UserError(f"audio is a list of {len(audio)} numbers; give samples as an array, np.asarray(audio).")
    sources: list[Source] = []
    for i, item in enumerate(audio if many else [audio]):
        if isinstance(item, str | Path) and Path(item).is_dir():
            if not many:
                raise UserError(
                    f'{item or "the working directory"} is a folder; give it in a list, predict(["{item}"]).'
                )
            sources += [Source(str(path), path) for path in find_audio([item], skipped)]
        else:
            sources.append(_source(item, rate, f" {i}" if many else ""))
    _check_transcripts([transcript] if isinstance(transcript, str) else transcript)
    if isinstance(transcript, str):
        return [
            source if source.transcript else dataclasses.replace(source, transcript=transcript) for source in sources
        ]
    if len(transcript) != len(sources):
        raise UserError(
            f"there are {len(transcript)} transcripts for {len(sources)} recordings; give one text for each, or "
            "one for all."
        )
    return [dataclasses.replace(source, transcript=text) for source, text in zip(sources, transcript, strict=True)]


def _check_transcripts(texts: Any) -> None:
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise UserError("transcript must be a text, or a list of texts.")
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError("transcript holds half a surrogate pair, which is no character; decode it anew.") from None


def _source(item: Any, rate: int | None, number: str) -> Source:
    if isinstance(item, str | Path):
        return Source(str(item), Path(item))
    if hasattr(item, "read"):
        item = item.read()
    if isinstance(item, bytes | bytearray | memoryview):
        return Source(f"bytes{number}", bytes(item))
    if isinstance(item, Mapping):
        return _from_mapping(item, rate, number)
    name = f"samples{number}"
    if _is_pair(item):
        item, rate = item[::-1] if isinstance(item[0], int | np.integer) else item
        return Source(name, _waveform(item, rate, name))
    if isinstance(item, np.ndarray) or _is_tensor(item):
        return Source(name, _waveform(item, rate, name))
    what = "None" if item is None else f"{type(item).__name__} {item!r:.60}"
    return Source(f"audio{number}", BadAudio("no audio", f"audio{number} is {what}; give {_KINDS}."))


def _from_mapping(row: Mapping[Any, Any], rate: int | None, number: str) -> Source:
    """A decoded or undecoded clip of Hugging Face datasets, or a row of a table that names a file or holds a clip."""
    row = {str(key): value for key, value in row.items()}
    keys = {key.lower(): key for key in row}
    if "array" in keys:
        rate = next((row[keys[key]] for key in _RATES if key in keys), rate)
        path = row.get(keys.get("path", ""))
        name = path if isinstance(path, str) else f"samples{number}"
        return Source(name, _waveform(row[keys["array"]], rate, name))
    if isinstance(content := row.get(keys.get("bytes", "")), bytes):
        return Source(f"bytes{number}", content)
    where = f"audio{number}"
    try:
        column, words = (choose(list(row), name, where) for name in ("audio", "transcript"))
    except UserError:
        column, words = None, None
    if column is None:
        why = f"{where} has the keys {', '.join(row) or 'nothing'}; name one of them audio, file or array."
        return Source(where, BadAudio("no audio", why))
    source = _source(row[column], row.get("rate", rate), number)
    text = row[words] if words else ""
    return dataclasses.replace(source, transcript=text if isinstance(text, str) else "")


def _waveform(audio: Any, rate: Any, name: str) -> Waveform | BadAudio:
    """Of samples, [samples], [samples, channels] or [channels, samples]; the error where they are none."""
    try:
        if hasattr(audio, "detach") and hasattr(audio, "cpu"):  # PyTorch's, with gradients, on a GPU or of bfloat16
            audio = audio.detach().cpu()
            audio = audio.float() if audio.is_floating_point() else audio
        array = np.asarray(audio)
        if array.ndim == 2 and array.shape[0] < array.shape[1]:
            array = array.T
        scaled_tc = _scaled(array[:, None] if array.ndim == 1 else array) if array.ndim in (1, 2) else None
        if scaled_tc is None or scaled_tc.shape[1] > _MOST_CHANNELS:
            raise BadAudio(
                "no samples",
                f"{name}: {array.dtype} {list(array.shape)} is no audio; give floats in [-1, 1], int16 or int32, "
                "[samples], [samples, channels] or [channels, samples].",
            )
        if not isinstance(rate, int | float | np.number) or isinstance(rate, bool) or float(rate) % 1 != 0:
            raise BadAudio("no sample rate", f"{name}: rate is {rate!r:.40}; {_RATE_ADVICE}.")
        check_rate(int(rate), name)
        return Waveform(mono(scaled_tc, int(rate)), int(rate))
    except BadAudio as error:
        return error
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        return BadAudio("no samples", f"{name} is not an array of samples ({why}); give a numpy array.")


def _scaled(array: np.ndarray) -> np.ndarray | None:
    """float32 in [-1, 1]; None for a type whose full scale is unknown."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128) / np.float32(128)
    if array.dtype.kind == "i" and array.dtype.itemsize in (2, 4):  # of either byte order
        return array.astype(np.float32) / np.float32(2.0 ** (8 * array.dtype.itemsize - 1))
    return None


def _is_tensor(audio: Any) -> bool:
    return hasattr(audio, "__array__") and hasattr(audio, "ndim") and not hasattr(audio, "iloc")


def _is_pair(audio: Any) -> bool:
    """(samples, rate), as soundfile and torchaudio return it; scipy has them the other way round."""
    if not isinstance(audio, tuple) or len(audio) != 2:
        return False
    arrays = [isinstance(item, list | np.ndarray) or _is_tensor(item) for item in audio]
    numbers = [isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in audio]
    return (arrays[0] and numbers[1]) or (numbers[0] and arrays[1])
