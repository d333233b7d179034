"""The best model of a run, predicting: distributions for a dataset's utterances or for loose clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from aer_jax.base_config import read_config
from aer_jax.data.batches import evaluation_batches
from aer_jax.data.chat import shared_prefix
from aer_jax.data.collate import Batch, collate
from aer_jax.data.dataset import Dataset
from aer_jax.data.prompt import PromptEncoder
from aer_jax.data.shapes import choose_shapes, cut_into_batches, needs_of, place
from aer_jax.errors import UserError
from aer_jax.lengths import MAX_SAMPLES
from aer_jax.models.emotion_head import HeadStatistics
from aer_jax.models.emotion_model import TRAINABLE, load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training import heard
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.processes import fetch, host_of, is_first
from aer_jax.training.run import Run
from aer_jax.training.step import make_predict_step, take_apart, to_device


def best_checkpoint(run: Run) -> tuple[Checkpoints, int]:
    """The checkpoint directory that holds what the run's best epoch learned, and the step at which it did.

    Raises:
        UserError: no epoch is over yet.
    """
    folder = run.path / "best"
    best = Checkpoints(folder) if folder.is_dir() else None
    step = best.latest if best else None
    if best is None or step is None:
        raise UserError(f"{run.path} has no best checkpoint yet; let `aer-jax train` finish its first epoch.")
    return best, step


def refuse_other_classes(run: Run, dataset: Dataset) -> None:
    """Refuse a dataset whose classes are not the run's.

    Raises:
        UserError: they are not.
    """
    if dataset.classes != run.classes:
        raise UserError(
            f"{run.path} predicts {', '.join(run.classes)}, {dataset.path} has {', '.join(dataset.classes)}; prepare "
            "the dataset with the run's classes, in its order."
        )


SHAPES = 8  # of loose clips, where the run counted its own


class Predictor:
    """The best checkpoint of a run, loaded.

    Args:
        run: a run whose first epoch is over.

    Attributes:
        step: of the checkpoint.
        classes: what its distributions are over, in order.
        batch: rows of a batch.

    Raises:
        UserError: no best checkpoint has been kept yet, or it does not fit.
    """

    def __init__(self, run: Run):
        config = run.config
        best, self.step = best_checkpoint(run)
        self.run, self.classes = run, run.classes
        self.batch = config.train.microbatch
        self.mesh = make_mesh(config.mesh)
        jax.set_mesh(self.mesh)
        model = load_model(config.model, len(self.classes), self.mesh, config.seed)
        learned = nnx.state(model, nnx.Any(TRAINABLE, HeadStatistics))
        with best:
            nnx.update(model, best.load(self.step, {"learned": learned})["learned"])
        self._parts = take_apart(model)
        self._step = make_predict_step(self._parts.graphdef)
        self.prompt = PromptEncoder(
            config.model.checkpoint, self.classes, transcript=config.data.transcript, speaker=config.data.speaker
        )

    def utterances(self, dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
        """Predicted distributions of a dataset's utterances, float32 [len(ids), classes].

        Raises:
            UserError: the dataset has other classes than the run.
        """
        refuse_other_classes(self.run, dataset)
        return self._predict(self._batches(dataset, ids, "predict"), len(ids))

    def frozen_audio(self, dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
        """What the audio tower heard before anything was trained.

        Returns:
            float32 [len(ids), layers x 2 d_model], mean and standard deviation over time of each layer.
        """
        graphdef, frozen = self._parts.graphdef, self._parts.frozen
        # Adapters of zeros are none.
        zeros = jax.tree.map(jnp.zeros_like, self._parts.trainable)

        @jax.jit
        def hear(zeros: nnx.State, frozen: nnx.State, batch: dict[str, jax.Array]) -> jax.Array:
            heard_lbe = nnx.merge(graphdef, zeros, frozen).base.audio_statistics(batch["audio"], batch["audio_samples"])
            return jnp.moveaxis(heard_lbe, 0, 1).reshape(heard_lbe.shape[1], -1)

        config = self.run.config
        audio = read_config(config.model.checkpoint).audio_config
        width = audio.encoder_layers * 2 * audio.d_model

        def hear_all(ids: Sequence[str]) -> np.ndarray:
            batches = self._batches(dataset, ids, "frozen audio tower")
            return predict_rows(batches, len(ids), width, lambda batch: hear(zeros, frozen, batch), self.mesh)

        return heard.once(config, dataset, self.prompt, ids, hear_all, reads="audio")

    def _batches(self, dataset: Dataset, ids: Sequence[str], what: str) -> Iterable[Batch]:
        data = self.run.config.data
        batches = evaluation_batches(
            ids,
            dataset,
            self.prompt,
            shapes=data.shapes,
            batch=self.batch,
            max_seconds=data.max_seconds,
            host=host_of(self.mesh),
        )
        return tqdm(batches, desc=what, unit="batch", disable=not is_first())

    def waveforms(
        self, audio: Sequence[np.ndarray], transcripts: Sequence[str], shapes_k2: np.ndarray | None = None
    ) -> np.ndarray:
        """Predicted distributions of loose clips.

        Args:
            audio: float32 [samples] at 16 kHz, at most 30 s each.
            transcripts: their words, "" where unknown.
            shapes_k2: batch shapes from `shapes`, where these clips are some of many; their own otherwise.

        Returns:
            float32 [len(audio), classes].
        """
        return self._predict(self._loose(audio, transcripts, shapes_k2), len(audio))

    def shapes(self, samples: Sequence[int], transcripts: Sequence[str]) -> np.ndarray:
        """Batch shapes for clips of these lengths at 16 kHz and with these words."""
        tokens = [self.prompt.encode(words, "", n) for n, words in zip(samples, transcripts, strict=True)]
        needs_n2 = _needs(samples, tokens, shared_prefix(self.prompt.prefix, tokens))
        return choose_shapes(needs_n2, needs_n2.max(axis=0), self.run.config.data.shapes or SHAPES, self.batch)

    def _loose(
        self, audio: Sequence[np.ndarray], transcripts: Sequence[str], shapes_k2: np.ndarray | None
    ) -> Iterator[Batch]:
        for clip in audio:
            if not 0 < len(clip) <= MAX_SAMPLES:
                raise ValueError(f"a clip has 1 to {MAX_SAMPLES} samples, not {len(clip)}")
        tokens = [self.prompt.encode(words, "", len(clip)) for clip, words in zip(audio, transcripts, strict=True)]
        prefix = shared_prefix(self.prompt.prefix, tokens)
        needs_n2 = _needs([len(clip) for clip in audio], tokens, prefix)
        if shapes_k2 is None or (needs_n2 > shapes_k2[-1]).any():  # a header promised less than there is
            shapes_k2 = self.shapes([len(clip) for clip in audio], transcripts)
        for shape, some in cut_into_batches(place(needs_n2, shapes_k2), self.batch):
            yield collate(
                [audio[i] for i in some],
                [tokens[i] for i in some],
                np.zeros((len(some), len(self.classes))),
                some,
                batch=self.batch,
                window=int(shapes_k2[shape, 0]),
                text_length=int(shapes_k2[shape, 1]),
                pad_id=self.prompt.pad_id,
                prefix=prefix,
            )

    def _predict(self, batches: Iterable[Batch], rows: int) -> np.ndarray:
        def predict(batch: dict[str, jax.Array]) -> jax.Array:
            return self._step(self._parts.trainable, self._parts.frozen, batch)

        logits_nk = predict_rows(batches, rows, len(self.classes), predict, self.mesh)
        return np.asarray(jax.nn.softmax(logits_nk))


def _needs(samples: Sequence[int], tokens: Sequence[np.ndarray], prefix: np.ndarray) -> np.ndarray:
    """See `needs_of`."""
    return needs_of(np.asarray(samples), np.array([len(prompt) - len(prefix) for prompt in tokens]))


def predict_rows(
    batches: Iterable[Mapping[str, np.ndarray]],
    rows: int,
    classes: int,
    predict: Callable[[dict[str, jax.Array]], jax.Array],
    mesh: Mesh,
) -> np.ndarray:
    """Logits of every row of an evaluation stream, fetched one batch behind the device.

    Args:
        batches: with `row` counting in 0..rows-1, -1 for filler.
        predict: device batch -> logits.

    Returns:
        float32 [rows, classes]; a row that never came is NaN.
    """
    logits_nk = np.full((rows, classes), np.nan, np.float32)
    waiting: tuple[jax.Array, jax.Array] | None = None

    def collect(row_b: jax.Array, logits_bk: jax.Array) -> None:
        row_b, logits_bk = fetch((row_b, logits_bk))  # of all processes that share the batch
        logits_nk[row_b[row_b >= 0]] = logits_bk[row_b >= 0]

    for batch in batches:
        laid = to_device(batch, mesh)
        logits_bk = predict(laid)
        if waiting is not None:
            collect(*waiting)
        waiting = (laid["row"], logits_bk)
    if waiting is not None:
        collect(*waiting)
    return logits_nk
