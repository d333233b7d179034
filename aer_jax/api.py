"""The package from Python: five functions that do what the commands of the same names do.

They are `aer_jax.prepare` and so on. Whatever is wrong with what they are given is one sentence, a
`aer_jax.errors.UserError`. docs/api.md goes through them in a row.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np

from aer_jax.config import load_config
from aer_jax.corpora import read_corpus
from aer_jax.data import prepare as preparation
from aer_jax.data.audio import BadAudio
from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.inference import predict as inference
from aer_jax.inference import sources
from aer_jax.inference.predict import Prediction
from aer_jax.pipeline import evaluate_run
from aer_jax.training import loop
from aer_jax.training.run import open_run

# A file by its path, the bytes of one, or samples.
Audio: TypeAlias = str | Path | bytes | np.ndarray
A = TypeVar("A", bound=Audio)


def prepare(
    corpus: str,
    out: str | Path,
    root: str | Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    split: str | Path | None = None,
    outside: str = "renormalise",
    seed: int = 0,
    lenient: bool = False,
    **choices: Any,
) -> Dataset:
    """A corpus on disk becomes a dataset directory.

    Args:
        corpus: "crema-d", "iemocap", "msp-podcast", "paper-json", "manifest", or "toy", which is generated.
        out: the directory to make; it must not exist.
        root: where the corpus lies; the file of a manifest.
        classes: what distributions are over, in order; the corpus' usual ones without it.
        split: "speakers", "fold:2/5", "session:3", "official", "random", or a file; see `aer-jax prepare --help`.
        outside: clips with votes outside the classes: "renormalise" over those inside, or "drop" the clip.
        seed: of what the split draws.
        lenient: skip and count lines that cannot be read.
        choices: of this corpus' reader, for instance `excited="apart"`.

    Returns:
        the dataset: `classes`, `utterances`, `votes`, `splits`, `audio(id)`.

    >>> data = aer_jax.prepare("manifest", "data/mine", "my.csv", classes=["happy", "neutral"])
    >>> data.classes, sorted(data.utterances)
    (('happy', 'neutral'), ['a1', 'a2', 'a3', 'a4'])
    """
    read = read_corpus(corpus, root, classes, lenient, **choices)
    return preparation.prepare(read, out, classes, seed, None if split is None else str(split), outside)


def train(config: str | Path | None = None, settings: Mapping[str, Any] | None = None, *, resume: bool = False) -> Path:
    """Fine-tune; the settings are those of aer_jax/config.py.

    Args:
        config: a YAML file.
        settings: on top of it, by dotted name.
        resume: continue the run in `out`; begin it where there is none yet.

    Returns:
        the run directory.

    >>> run = aer_jax.train(None, {
    ...     "out": "runs/short", "data.dataset": "data/toy", "model.checkpoint": CHECKPOINT,
    ...     "data.shapes": 1, "data.dime_aug.ratio": 0, "train.epochs": 1, "train.batch": 8, "train.microbatch": 8,
    ... })
    >>> sorted(path.name for path in run.iterdir() if path.suffix in (".yaml", ".jsonl"))
    ['config.yaml', 'metrics.jsonl']
    """
    named = {key: str(value) if isinstance(value, Path) else value for key, value in (settings or {}).items()}
    overrides = [f"{key}={json.dumps(value)}" for key, value in named.items()]
    return loop.train(load_config(config, overrides), resume=resume).path


def evaluate(run: str | Path, split: str = "test") -> dict[str, Any]:
    """Predict a split and score it against human votes; written to `RUN/evaluation/<split>` too.

    Returns:
        what metrics.json holds: js, bc, accuracy, ..., `ci`, `baselines`, `by_ambiguity`, `definitions`.

    >>> metrics = aer_jax.evaluate("runs/toy")
    >>> metrics["references"], metrics["n_speakers"], 0 < metrics["js"] < 1
    ('human', 1, True)
    """
    return evaluate_run(run, split)


class Model(inference.Model):
    """A trained run, ready to predict. Attributes: `classes`; `band`, what its intervals come from, or None."""

    @overload
    def predict(
        self,
        audio: Audio,
        *,
        transcript: str = "",
        rate: int | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        audio: list[A] | tuple[A, ...],
        *,
        transcript: str | Sequence[str] = "",
        rate: int | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> list[Prediction]: ...

    def predict(
        self,
        audio: Audio | list[A] | tuple[A, ...],
        *,
        transcript: str | Sequence[str] = "",
        rate: int | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> Prediction | list[Prediction]:
        """What listeners would say.

        Args:
            audio: a path, the bytes of a file, or float samples [samples] or [samples, channels]; or a list of such,
                in which a folder stands for its audio files. A list is faster than call after call.
            transcript: the words, where known: the same for all, or one for each of a list without folders.
            rate: of samples, in Hz.
            window: seconds; what is longer is predicted window by window. Without it, what is longer than 30 s, in
                windows of 10 s.
            hop: seconds from window to window at most.

        Returns:
            a `Prediction` (`probs`, `ambiguity`, `label`, `interval`, `timeline`, `seconds`), or a list of them.

        Raises:
            UserError: a recording cannot be used.

        >>> model = aer_jax.load("runs/toy")
        >>> heard = model.predict("clips/a1.wav", transcript="See you tomorrow.")
        >>> list(heard.probs), round(sum(heard.probs.values()), 6), 0 <= heard.ambiguity <= 1
        (['angry', 'happy', 'neutral', 'sad'], 1.0, True)
        >>> low, high = heard.interval["sad"]
        >>> low <= heard.probs["sad"] <= high
        True
        >>> [(part.start, part.end) for part in model.predict(samples, rate=16_000, window=1.0).timeline]
        [(0.0, 1.0), (1.0, 2.0)]
        """
        many = isinstance(audio, list | tuple)
        given: Sequence[Audio] = audio if isinstance(audio, list | tuple) else [audio]
        wanted = _sources(given, transcript, rate, many)
        found = []
        for answer in self.stream(wanted, window, hop):
            if isinstance(answer, BadAudio):
                raise answer
            found.append(answer)
        return found if many else found[0]


def load(run: str | Path) -> Model:
    """The best model of a run, loaded once to predict often.

    >>> aer_jax.load("runs/toy").classes
    ('angry', 'happy', 'neutral', 'sad')
    """
    return Model(open_run(run))


def predict(run: str | Path, audio: Audio | list[A] | tuple[A, ...], **options: Any) -> Prediction | list[Prediction]:
    """`load(run).predict(audio, ...)`; for more than one call keep what `load` returns.

    >>> [heard.file for heard in aer_jax.predict("runs/toy", ["clips"])]
    ['clips/a1.wav', 'clips/a2.wav', 'clips/a3.wav', 'clips/a4.wav']
    """
    return load(run).predict(audio, **options)


def _sources(
    audio: Sequence[Audio], transcript: str | Sequence[str], rate: int | None, folders: bool
) -> list[sources.Source]:
    found: list[sources.Source] = []
    for i, one in enumerate(audio):
        if isinstance(one, str | Path):
            if Path(one).is_dir() and not folders:
                raise UserError(f'{one} is a folder; give it in a list, predict(["{one}"]).')
            found += [sources.Source(str(path), path) for path in sources.find([one])]
        elif isinstance(one, bytes):
            found.append(sources.Source(f"bytes {i}" if folders else "bytes", one))
        else:
            found.append(sources.samples(one, rate, f"samples {i}" if folders else "samples"))
    words = [transcript] * len(found) if isinstance(transcript, str) else list(transcript)
    if len(words) != len(found):
        raise UserError(f"there are {len(words)} transcripts for {len(found)} recordings; give one for each, or one.")
    return [dataclasses.replace(source, transcript=text) for source, text in zip(found, words, strict=True)]
