"""The package from Python: five functions that do what the commands of the same names do.

They are `aer_jax.prepare` and so on. Whatever is wrong with what they are given is one sentence, a
`aer_jax.errors.UserError`. docs/api.md goes through them in a row.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np

from aer_jax.config import load_config
from aer_jax.corpora import read_corpus
from aer_jax.data.audio.read import BadAudio
from aer_jax.data.dataset import Dataset
from aer_jax.data.preparation import prepare as preparation
from aer_jax.errors import UserError
from aer_jax.inference import predict as inference
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.inference.inputs import is_many, read_inputs
from aer_jax.inference.predict import Prediction
from aer_jax.inference.sources import listed
from aer_jax.training import trainer as loop
from aer_jax.training.run import open_run

# One recording: a file by its path, the bytes of one, samples, or a dictionary that holds one of these.
Audio: TypeAlias = str | Path | bytes | np.ndarray | tuple[np.ndarray, int] | Mapping[str, Any]


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
    with _arguments("root", "out", "classes", "split", "outside", "seed", "lenient", *choices, "map", "labels"):
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
    with _arguments("resume"):
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
    def predict(  # type: ignore[overload-overlap]  # text and bytes are iterable too, and are one recording
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
        audio: Iterable[Any],
        *,
        transcript: str | Sequence[str] = "",
        rate: int | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> list[Prediction | BadAudio]: ...

    def predict(
        self,
        audio: Audio | Iterable[Any],
        *,
        transcript: str | Sequence[str] = "",
        rate: int | None = None,
        window: float | None = None,
        hop: float | None = None,
    ) -> Prediction | list[Prediction | BadAudio]:
        """Predict the distribution of listeners' votes.

        Args:
            audio: one recording, or a list of them, in which a folder stands for its audio files. A recording is a
                path; the bytes of a file; samples as an array with `rate`, or as (samples, rate); or a dictionary, as
                Hugging Face datasets give it ("array" and "sampling_rate"), or with a path under "file" or "audio" and
                optionally "transcript". Samples are floats in [-1, 1], int16 or int32, [samples],
                [samples, channels] or [channels, samples]. A pandas DataFrame is a list of its rows. A list is faster
                than call after call.
            transcript: the words, where known: the same for all, or one for each of a list without folders.
            rate: in Hz, of samples that come without one.
            window: seconds; what is longer is predicted window by window. Without it, what is longer than 30 s, in
                windows of 10 s.
            hop: seconds from window to window at most.

        Returns:
            a `Prediction` (`probs`, `ambiguity`, `label`, `interval`, `timeline`, `seconds`), or a list of them, in
            which the error stands in the place of a recording that cannot be used.

        Raises:
            UserError: the recording cannot be used, or an argument is wrong.

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
        skipped: Counter[str] = Counter()
        wanted = read_inputs(audio, rate, transcript, skipped)
        if skipped:
            warnings.warn(f"left out of the folders, for they do not end like audio: {listed(skipped)}", stacklevel=2)
        answers = list(self.stream(wanted, window, hop))
        if is_many(audio):
            return answers
        (answer,) = answers
        if isinstance(answer, BadAudio):
            raise answer
        return answer


def load(run: str | Path) -> Model:
    """The best model of a run, loaded once to predict often.

    >>> aer_jax.load("runs/toy").classes
    ('angry', 'happy', 'neutral', 'sad')
    """
    return Model(open_run(run))


def predict(run: str | Path, audio: Audio | Iterable[Any], **options: Any) -> Prediction | list[Prediction | BadAudio]:
    """`load(run).predict(audio, ...)`; for more than one call keep what `load` returns.

    >>> [heard.file for heard in aer_jax.predict("runs/toy", ["clips"])]
    ['clips/a1.wav', 'clips/a2.wav', 'clips/a3.wav', 'clips/a4.wav']
    """
    return load(run).predict(audio, **options)


@contextmanager
def _arguments(*names: str) -> Iterator[None]:
    """Messages name a function's arguments where the command has flags."""
    try:
        yield
    except UserError as error:
        text = str(error)
        if "map" in names:
            text = re.sub(r"--map ([\w+.,]+=[\w+]*)", r'map="\1"', text)
        for name in names:
            given = f"{name}=True" if name in ("lenient", "resume") else name
            text = re.sub(rf"--{name}(?![\w-])", given, text)
        error.args = (text,)
        raise
