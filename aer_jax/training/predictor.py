"""Prediction by the best model of a run: for a dataset's utterances or for loose clips."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from aer_jax.base.chat import shared_prefix
from aer_jax.base.config import read_config
from aer_jax.base.lengths import MAX_SAMPLES
from aer_jax.config import Config
from aer_jax.data.batching.batches import evaluation_batches
from aer_jax.data.batching.buckets import Batch, collate
from aer_jax.data.batching.shapes import bucketize, choose_shapes, cut_into_batches, needs_of
from aer_jax.data.dataset import Dataset
from aer_jax.data.prompt import PromptEncoder
from aer_jax.errors import UserError
from aer_jax.evaluation.projection import gather
from aer_jax.models.adapters.lora import LoRA
from aer_jax.models.emotion_head import HeadStatistics, ReadoutHead
from aer_jax.models.emotion_model import TRAINABLE, EmotionModel, load_model
from aer_jax.models.sharding import make_mesh
from aer_jax.training.batch_prediction import compile_features, predict_blocks, predict_rows, readout_inputs
from aer_jax.training.checkpoint import Checkpoints
from aer_jax.training.distributed import fetch, host_of, is_first
from aer_jax.training.feature_cache import cached_features
from aer_jax.training.run import Run
from aer_jax.training.step import make_predict_step, split_model


def best_checkpoint(run: Run) -> tuple[Checkpoints, int]:
    """The checkpoint directory with the run's best weights, and their step.

    Raises:
        UserError: no epoch is over yet.
    """
    folder = run.path / "best"
    if folder.is_dir() and (step := (best := Checkpoints(folder)).latest) is not None:
        return best, step
    raise UserError(f"{run.path} has no best checkpoint yet; let `aer-jax train` finish its first epoch.")


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


SHAPES = 8  # batch shapes of waveforms, where the run says none


class WaveformPredictor:
    """Distributions of loose clips by a loaded model.

    Args:
        config: mesh, batch, prompt and batch shapes.
        classes: of the model.
        model: on the mesh that is set.

    Attributes:
        classes: what its distributions are over, in order.
        batch: rows of a batch.
        prompt: the encoder of prompts.
    """

    def __init__(self, config: Config, classes: Sequence[str], model: EmotionModel):
        self.config, self.classes = config, tuple(classes)
        self.batch = config.train.microbatch
        self.mesh = jax.sharding.get_mesh()
        self._parts = split_model(model)
        self._step = make_predict_step(self._parts.graphdef)
        self.prompt = PromptEncoder.of(config, self.classes)

    def predict_waveforms(
        self, audio: Sequence[np.ndarray], transcripts: Sequence[str], shapes_k2: np.ndarray | None = None
    ) -> np.ndarray:
        """Predicted distributions of loose clips.

        Args:
            audio: float32 [samples] at 16 kHz, at most 30 s each.
            transcripts: their words, "" where unknown.
            shapes_k2: batch shapes from `choose_shapes`, where these clips are some of many; their own otherwise.

        Returns:
            float32 [len(audio), classes].
        """
        return self._predict(self._waveform_batches(audio, transcripts, shapes_k2), len(audio))

    def choose_shapes(self, samples: Sequence[int], transcripts: Sequence[str]) -> np.ndarray:
        """Batch shapes for clips of these lengths at 16 kHz and with these words."""
        tokens = [self.prompt.encode(words, "", n) for n, words in zip(samples, transcripts, strict=True)]
        needs_n2 = _needs(samples, tokens, shared_prefix(self.prompt.prefix, tokens))
        return choose_shapes(needs_n2, needs_n2.max(axis=0), self.config.data.shapes or SHAPES, self.batch)

    def _waveform_batches(
        self, audio: Sequence[np.ndarray], transcripts: Sequence[str], shapes_k2: np.ndarray | None
    ) -> Iterator[Batch]:
        for clip in audio:
            if not 0 < len(clip) <= MAX_SAMPLES:
                raise ValueError(f"a clip has 1 to {MAX_SAMPLES} samples, not {len(clip)}")
        tokens = [self.prompt.encode(words, "", len(clip)) for clip, words in zip(audio, transcripts, strict=True)]
        prefix = shared_prefix(self.prompt.prefix, tokens)
        needs_n2 = _needs([len(clip) for clip in audio], tokens, prefix)
        if shapes_k2 is None or (needs_n2 > shapes_k2[-1]).any():  # a header promised less than there is
            shapes_k2 = self.choose_shapes([len(clip) for clip in audio], transcripts)
        for shape, rows in cut_into_batches(bucketize(needs_n2, shapes_k2), self.batch):
            yield collate(
                [audio[i] for i in rows],
                [tokens[i] for i in rows],
                np.zeros((len(rows), len(self.classes))),
                rows,
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


def zero_shot_predictor(config: Config, classes: Sequence[str]) -> WaveformPredictor:
    """What a checkpoint answers by itself: no adapter, temperature 1.

    Raises:
        UserError: there is no such checkpoint, or it cannot express a class.
    """
    lora = dataclasses.replace(config.model.lora, targets=())
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, head="answers", lora=lora))
    mesh = make_mesh(config.mesh)
    jax.set_mesh(mesh)
    return WaveformPredictor(config, classes, load_model(config.model, classes, mesh, config.seed))


class Predictor(WaveformPredictor):
    """The best checkpoint of a run, loaded.

    Args:
        run: a run whose first epoch is over.

    Attributes:
        step: of the checkpoint.

    Raises:
        UserError: no best checkpoint has been kept yet, or it does not fit.
    """

    def __init__(self, run: Run):
        config = run.config
        best, self.step = best_checkpoint(run)
        self.run = run
        mesh = make_mesh(config.mesh)
        jax.set_mesh(mesh)
        model = load_model(config.model, run.classes, mesh, config.seed)
        learned = nnx.state(model, nnx.Any(TRAINABLE, HeadStatistics))
        with best:
            nnx.update(model, best.load(self.step, {"learned": learned})["learned"])
        # A new adapter's B is zero, and it changes nothing.
        adapters = [module for _, module in nnx.iter_modules(model) if isinstance(module, LoRA)]
        untrained = not any(bool(jnp.any(adapter.b[...] != 0)) for adapter in adapters)
        self._readout_alone = untrained and isinstance(model.emotion_head, ReadoutHead)
        super().__init__(config, run.classes, model)

    def predict_utterances(self, dataset: Dataset, ids: Sequence[str]) -> np.ndarray:
        """Predicted distributions of a dataset's utterances, float32 [len(ids), classes].

        Where no adapter was trained, what the readout reads comes from the cache of features.

        Raises:
            UserError: the dataset has other classes than the run.
        """
        refuse_other_classes(self.run, dataset)
        if not self._readout_alone:
            return self._predict(self._batches(dataset, ids, "predict"), len(ids))
        graphdef, trainable, frozen = self._parts

        @jax.jit
        def logits(trainable: nnx.State, frozen: nnx.State, inputs_be: np.ndarray) -> jax.Array:
            return nnx.merge(graphdef, trainable, frozen).readout.logits(inputs_be)

        inputs = functools.partial(self._readout_inputs, dataset)
        logits_nk = gather(ids, inputs, lambda inputs_be: fetch(logits(trainable, frozen, inputs_be)))
        return np.asarray(jax.nn.softmax(logits_nk))

    def audio_statistics(self, dataset: Dataset, ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Statistics of the frozen audio tower's layers; see `cached_features`.

        Yields:
            positions among ids, and float32 [b, layers x 2 d_model], mean and standard deviation over time of each
            layer.
        """
        audio = read_config(self.config.model.checkpoint).audio_config
        if self._readout_alone and self.config.model.readout != "audio":  # its first inputs, which are cached
            for position_b, inputs_be in self._readout_inputs(dataset, ids):
                yield position_b, inputs_be[:, : audio.encoder_layers * 2 * audio.d_model]
            return

        def statistics(model: EmotionModel, batch: dict[str, jax.Array]) -> jax.Array:
            audio_lbe = model.base.audio_statistics(batch["audio"], batch["audio_samples"])
            return jnp.moveaxis(audio_lbe, 0, 1).reshape(audio_lbe.shape[1], -1)

        yield from self._base_features(dataset, ids, statistics, "audio")

    def _readout_inputs(self, dataset: Dataset, ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self._base_features(dataset, ids, readout_inputs, self.config.model.readout)

    def _base_features(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        features: Callable[[EmotionModel, dict[str, jax.Array]], jax.Array],
        reads: str,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        graphdef, trainable, frozen = self._parts
        base = nnx.merge(graphdef, jax.tree.map(jnp.zeros_like, trainable), frozen)  # adapters of zeros are none

        def compute(ids: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            batches = self._batches(dataset, ids, "features of the frozen base")
            return predict_blocks(batches, compile_features(base, features), self.mesh)

        return cached_features(self.config, dataset, self.prompt, ids, compute, reads=reads)

    def _batches(self, dataset: Dataset, ids: Sequence[str], what: str) -> Iterable[Batch]:
        data = self.config.data
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


def _needs(samples: Sequence[int], tokens: Sequence[np.ndarray], prefix: np.ndarray) -> np.ndarray:
    return needs_of(np.asarray(samples), np.array([len(prompt) - len(prefix) for prompt in tokens]))
