"""The best model of a run, predicting: distributions for a dataset's utterances or for loose clips."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from aer_jax.base.chat import shared_prefix
from aer_jax.base.config import read_config
from aer_jax.base.lengths import MAX_SAMPLES
from aer_jax.data.batching.batches import evaluation_batches
from aer_jax.data.batching.collate import Batch, collate
from aer_jax.data.batching.shapes import choose_shapes, cut_into_batches, needs_of, place
from aer_jax.data.dataset import Dataset
from aer_jax.data.prompt import PromptEncoder
from aer_jax.errors import UserError
from aer_jax.evaluation.projection import gather
from aer_jax.models.adapters.lora import LoRA
from aer_jax.models.emotion_head import HeadStatistics, ReadoutHead
from aer_jax.models.emotion_model import TRAINABLE, EmotionModel, load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training import feature_cache as heard
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.distributed import fetch, host_of, is_first
from aer_jax.training.run import Run
from aer_jax.training.step import make_predict_step, model_batch, split_model, to_device


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
        # A new adapter's B is zero, and it changes nothing.
        adapters = [module for _, module in nnx.iter_modules(model) if isinstance(module, LoRA)]
        untrained = not any(bool(jnp.any(adapter.b[...] != 0)) for adapter in adapters)
        self._readout_alone = untrained and isinstance(model.emotion_head, ReadoutHead)
        self._parts = split_model(model)
        self._step = make_predict_step(self._parts.graphdef)
        self.prompt = PromptEncoder(
            config.model.checkpoint, self.classes, transcript=config.data.transcript, speaker=config.data.speaker
        )

    def utterances(self, dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
        """Predicted distributions of a dataset's utterances, float32 [len(ids), classes].

        Where no adapter was trained, what the readout reads comes from the cache of features.

        Raises:
            UserError: the dataset has other classes than the run.
        """
        refuse_other_classes(self.run, dataset)
        if not self._readout_alone:
            return self._predict(self._batches(dataset, ids, "predict"), len(ids))
        parts = self._parts

        @jax.jit
        def logits(trainable: nnx.State, frozen: nnx.State, inputs_be: np.ndarray) -> jax.Array:
            return nnx.merge(parts.graphdef, trainable, frozen).readout.logits(inputs_be)

        logits_nk = gather(
            ids,
            functools.partial(self._readout_inputs, dataset),
            lambda inputs_be: fetch(logits(parts.trainable, parts.frozen, inputs_be)),
        )
        return np.asarray(jax.nn.softmax(logits_nk))

    def audio_statistics(self, dataset: Dataset, ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What the audio tower computes before anything is trained; see `heard.blocks`.

        Yields:
            positions among ids, and float32 [b, layers x 2 d_model], mean and standard deviation over time of each
            layer.
        """
        audio = read_config(self.run.config.model.checkpoint).audio_config
        if self._readout_alone and self.run.config.model.readout != "audio":  # its first inputs, which are cached
            for position_b, inputs_be in self._readout_inputs(dataset, ids):
                yield position_b, inputs_be[:, : audio.encoder_layers * 2 * audio.d_model]
            return

        def statistics(model: EmotionModel, batch: dict[str, jax.Array]) -> jax.Array:
            audio_lbe = model.base.audio_statistics(batch["audio"], batch["audio_samples"])
            return jnp.moveaxis(audio_lbe, 0, 1).reshape(audio_lbe.shape[1], -1)

        yield from self._frozen(dataset, ids, statistics, "audio")

    def _readout_inputs(self, dataset: Dataset, ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What the readout reads of each clip, by the base alone."""

        def inputs(model: EmotionModel, batch: dict[str, jax.Array]) -> jax.Array:
            return model.readout.inputs(model.features(model_batch(batch)))

        return self._frozen(dataset, ids, inputs, self.run.config.model.readout)

    def _frozen(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        features: Callable[[EmotionModel, dict[str, jax.Array]], jax.Array],
        reads: str,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        graphdef, frozen = self._parts.graphdef, self._parts.frozen
        zeros = jax.tree.map(jnp.zeros_like, self._parts.trainable)  # adapters of zeros are none

        @jax.jit
        def compute(zeros: nnx.State, frozen: nnx.State, batch: dict[str, jax.Array]) -> jax.Array:
            return features(nnx.merge(graphdef, zeros, frozen), batch)

        def blocks(ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            batches = self._batches(dataset, ids, "features of the frozen base")
            return predict_blocks(batches, lambda batch: compute(zeros, frozen, batch), self.mesh)

        return heard.blocks(self.run.config, dataset, self.prompt, ids, blocks, reads=reads)

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


def predict_blocks(
    batches: Iterable[Mapping[str, np.ndarray]],
    predict: Callable[[dict[str, jax.Array]], jax.Array],
    mesh: Mesh,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers and outputs of each batch of an evaluation stream, fetched one batch behind the device.

    Args:
        batches: with `row` counting from 0, -1 for filler.
        predict: device batch -> outputs [batch, ...].
    """
    waiting: tuple[jax.Array, jax.Array] | None = None

    def fetched(row_b: jax.Array, output_b: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        rows, outputs = fetch((row_b, output_b))  # of all processes that share the batch
        return rows[rows >= 0], outputs[rows >= 0]

    for batch in batches:
        laid = to_device(batch, mesh)
        output_b = predict(laid)
        if waiting is not None:
            yield fetched(*waiting)
        waiting = (laid["row"], output_b)
    if waiting is not None:
        yield fetched(*waiting)


def predict_rows(
    batches: Iterable[Mapping[str, np.ndarray]],
    rows: int,
    classes: int,
    predict: Callable[[dict[str, jax.Array]], jax.Array],
    mesh: Mesh,
) -> np.ndarray:
    """Logits of every row, float32 [rows, classes]; a row that never came is NaN. Arguments as in `predict_blocks`."""
    logits_nk = np.full((rows, classes), np.nan, np.float32)
    for row_b, logits_bk in predict_blocks(batches, predict, mesh):
        logits_nk[row_b] = logits_bk
    return logits_nk
