"""The package from Python: `prepare`, `train`, `evaluate` and `predict` do what the commands of these names do.

`load` keeps a model in memory for many predictions. Bad input is a `aer_jax.errors.UserError` of one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aer_jax.config import load_config
from aer_jax.corpora import read_corpus
from aer_jax.data.audio.read import BadAudio
from aer_jax.data.dataset import Dataset
from aer_jax.data.preparation import prepare as preparation
from aer_jax.errors import UserError
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.inference.inputs import Audio
from aer_jax.inference.model import Model
from aer_jax.inference.prediction import Prediction
from aer_jax.training import trainer as loop
from aer_jax.training.run import open_run


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
    """Prepare a corpus on disk as a dataset directory.

    Args:
        corpus: "crema-d", "iemocap", "msp-podcast", "paper-json", "manifest", or "toy", which is generated.
        out: the directory to make; it must not exist.
        root: where the corpus lies; the file of a manifest.
        classes: of the distributions, in order; None is the corpus' usual ones.
        split: "speakers", "fold:2/5", "session:3", "official", "random", or a file; see `aer-jax prepare --help`.
        outside: clips with votes outside the classes: "renormalise" over those inside, or "drop" the clip.
        seed: random seed of the split.
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
        resume: continue the run in `out`; start it where there is none yet.

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


def load(run: str | Path) -> Model:
    """Load the best model of a run, to predict often.

    >>> aer_jax.load("runs/toy").classes
    ('angry', 'happy', 'neutral', 'sad')
    """
    return Model(open_run(run))


def predict(run: str | Path, audio: Audio | Iterable[Any], **options: Any) -> Prediction | list[Prediction | BadAudio]:
    """Predict recordings: `load(run).predict(audio, ...)`; for more than one call keep what `load` returns.

    >>> [prediction.file for prediction in aer_jax.predict("runs/toy", ["clips"])]
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
