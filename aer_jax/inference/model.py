"""A trained run as a model: recordings in, predictions out, in order; a bad recording costs no other."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import numpy as np

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.corpora.base import Waveform
from aer_jax.data.audio.read import BadAudio, usable
from aer_jax.evaluation.ambiguity import ambiguity
from aer_jax.inference import prediction_intervals
from aer_jax.inference.inputs import Audio, is_many, read_inputs
from aer_jax.inference.prediction import Prediction, Window
from aer_jax.inference.sources import Source, format_skipped
from aer_jax.inference.windows import LONGEST, Windowing, windowing
from aer_jax.labels.votes import normalise
from aer_jax.training.predictor import Predictor, WaveformPredictor
from aer_jax.training.run import Run

_CHUNK_SECONDS = 1800  # upper bound on decoded audio in memory: 115 MB
_CHUNK_BATCHES = 16
_READERS = 4
_AHEAD = 16  # recordings

Decoded = tuple[Source, np.ndarray | BadAudio]
Plan = list[tuple[int, int, int | None]]  # of a recording's windows: start, end, and row of the predictions


class Model:
    """A trained run, or a checkpoint as it is, ready to predict.

    Args:
        run: an opened run whose first epoch is over; or `zero_shot_predictor` of a checkpoint.

    Attributes:
        classes: what its distributions are over, in order.
        intervals: what prediction intervals come from, or None.

    Raises:
        UserError: the run has no best checkpoint yet, or it does not fit.
    """

    def __init__(self, run: Run | WaveformPredictor):
        self.intervals = None
        if isinstance(run, WaveformPredictor):
            self._predictor = run
        else:
            self._predictor = predictor = Predictor(run)
            self.intervals = prediction_intervals.load(run.path, predictor.step, predictor.classes)
        self.classes = self._predictor.classes

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
            which the error takes the place of a recording that cannot be used.

        Raises:
            UserError: the recording cannot be used, or an argument is wrong.

        >>> model = aer_jax.load("runs/toy")
        >>> prediction = model.predict("clips/a1.wav", transcript="See you tomorrow.")
        >>> list(prediction.probs), round(sum(prediction.probs.values()), 6), 0 <= prediction.ambiguity <= 1
        (['angry', 'happy', 'neutral', 'sad'], 1.0, True)
        >>> low, high = prediction.interval["sad"]
        >>> low <= prediction.probs["sad"] <= high
        True
        >>> [(part.start, part.end) for part in model.predict(samples, rate=16_000, window=1.0).timeline]
        [(0.0, 1.0), (1.0, 2.0)]
        """
        skipped: Counter[str] = Counter()
        sources = read_inputs(audio, rate, transcript, skipped)
        if skipped:
            warnings.warn(
                f"left out of the folders, not audio by their endings: {format_skipped(skipped)}", stacklevel=2
            )
        predictions = list(self.stream(sources, window, hop))
        if is_many(audio):
            return predictions
        (prediction,) = predictions
        if isinstance(prediction, BadAudio):
            raise prediction
        return prediction

    def stream(
        self, sources: Sequence[Source], window: float | None = None, hop: float | None = None
    ) -> Iterator[Prediction | BadAudio]:
        """One prediction per recording, in order, as soon as it is ready; for one that cannot be used, the error.

        Files are decoded in threads ahead of the device; about half an hour of audio is in memory, or a single
        recording that is longer.

        Args:
            sources: the recordings.
            window, hop: seconds, see `predict`; windows are spread evenly, and the last one ends with the recording.

        Raises:
            UserError: a window or hop that cannot be, or a transcript that is too long.
        """
        cuts = windowing(window, hop)
        self._refuse_long_transcripts(sources)
        shapes_k2 = self._shapes(sources, cuts)
        with ThreadPoolExecutor(_READERS) as pool:
            for chunk in _chunks(_read_ahead(pool, sources), _CHUNK_BATCHES * self._predictor.batch):
                yield from self._predict_chunk(chunk, cuts, shapes_k2)

    def _predict_chunk(
        self, chunk: list[Decoded], cuts: Windowing, shapes_k2: np.ndarray | None
    ) -> Iterator[Prediction | BadAudio]:
        clips: list[np.ndarray] = []
        transcripts: list[str] = []
        plans: list[Plan] = []
        for source, audio_t in chunk:
            plan: Plan = []
            plans.append(plan)
            if isinstance(audio_t, BadAudio):
                continue
            spans = cuts.spans(len(audio_t))
            for start, end in spans:
                whole, part_t = len(spans) == 1, audio_t[start:end]
                if whole or _audible(part_t):
                    plan.append((start, end, len(clips)))
                    clips.append(part_t)
                    # The words of a whole recording are not those of a part.
                    transcripts.append(source.transcript if whole else "")
                else:
                    plan.append((start, end, None))
        probs_nk = np.empty((0, len(self.classes)))
        if clips:
            probs_nk = normalise(self._predictor.predict_waveforms(clips, transcripts, shapes_k2).astype(float))
        for (source, audio_t), plan in zip(chunk, plans, strict=True):
            yield audio_t if isinstance(audio_t, BadAudio) else self._prediction(source, plan, probs_nk)

    def _prediction(self, source: Source, plan: Plan, probs_nk: np.ndarray) -> Prediction | BadAudio:
        rows = [row for *_, row in plan if row is not None]
        if not rows:
            return BadAudio("audio silent", f"{source.name} is silent in every window; remove it.")
        mean_k = probs_nk[rows].mean(axis=0)
        seconds = plan[-1][1] / SAMPLE_RATE
        shares, level = self._shares(mean_k)
        if len(plan) == 1:
            return Prediction(source.name, seconds, shares, level, self._interval(mean_k))
        timeline = [
            Window(
                start / SAMPLE_RATE, end / SAMPLE_RATE, *((None, None) if row is None else self._shares(probs_nk[row]))
            )
            for start, end, row in plan
        ]
        return Prediction(source.name, seconds, shares, level, timeline=timeline)

    def _shares(self, probs_k: np.ndarray) -> tuple[dict[str, float], float]:
        return dict(zip(self.classes, probs_k.tolist(), strict=True)), float(ambiguity(probs_k[None])[0])

    def _interval(self, probs_k: np.ndarray) -> dict[str, tuple[float, float]] | None:
        if self.intervals is None:
            return None
        ends_k2 = self.intervals.around(probs_k[None])[0].tolist()
        return {name: (low, high) for name, (low, high) in zip(self.classes, ends_k2, strict=True)}

    def _refuse_long_transcripts(self, sources: Sequence[Source]) -> None:
        prompt = self._predictor.prompt
        for source in sources:
            if source.transcript:
                seconds = min(source.seconds() or LONGEST, LONGEST)
                tokens = prompt.encode(source.transcript, "", max(1, round(seconds * SAMPLE_RATE)))
                prompt.refuse_long(source.name, len(tokens))

    def _shapes(self, sources: Sequence[Source], cuts: Windowing) -> np.ndarray | None:
        """Batch shapes for all recordings at once, by their headers, so that no chunk compiles its own."""
        samples = [int(seconds * SAMPLE_RATE) + 1 if (seconds := source.seconds()) else 0 for source in sources]
        clips = [
            (length, source.transcript) if length <= cuts.longest else (cuts.window, "")
            for length, source in zip(samples, sources, strict=True)
            if length > 0
        ]
        if not clips:
            return None
        lengths, transcripts = zip(*clips, strict=True)
        return self._predictor.choose_shapes(lengths, transcripts)


def _audible(part_t: np.ndarray) -> bool:
    try:
        usable(Waveform(part_t, SAMPLE_RATE), "")
    except BadAudio:
        return False
    return True


def _read_ahead(pool: ThreadPoolExecutor, sources: Sequence[Source]) -> Iterator[Decoded]:
    rest = iter(sources)
    waiting = deque((source, pool.submit(_read, source)) for source in itertools.islice(rest, _AHEAD))
    while waiting:
        source, future = waiting.popleft()
        waiting.extend((other, pool.submit(_read, other)) for other in itertools.islice(rest, 1))
        yield source, future.result()


def _chunks(decoded: Iterable[Decoded], most: int) -> Iterator[list[Decoded]]:
    chunk: list[Decoded] = []
    seconds = 0.0
    for source, audio_t in decoded:
        chunk.append((source, audio_t))
        seconds += 0.0 if isinstance(audio_t, BadAudio) else len(audio_t) / SAMPLE_RATE
        if len(chunk) >= most or seconds >= _CHUNK_SECONDS:
            yield chunk
            chunk, seconds = [], 0.0
    if chunk:
        yield chunk


def _read(source: Source) -> np.ndarray | BadAudio:
    try:
        return source.read()
    except BadAudio as error:
        return error
