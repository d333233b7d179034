"""Recordings in, distributions out: as they come, in their order, whatever one of them is like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aer_jax.base.lengths import MAX_SAMPLES, SAMPLE_RATE
from aer_jax.corpora.base import Waveform
from aer_jax.data.audio.read import BadAudio, usable
from aer_jax.errors import UserError
from aer_jax.evaluation.ambiguity import ambiguity
from aer_jax.inference import band as bands
from aer_jax.inference.sources import Source
from aer_jax.training.predictor import Predictor
from aer_jax.training.run import Run

# Where nothing else is asked for, a recording that the audio tower cannot hear at once is cut into turns of speech.
LONG_SECONDS = MAX_SAMPLES / SAMPLE_RATE
WINDOW_SECONDS = 10.0
SHORTEST_WINDOW = 0.5
# Held decoded at a time: an hour is 230 MB.
_CHUNK_SECONDS = 1800
_CHUNK_BATCHES = 16
_READERS = 4


@dataclass(frozen=True)
class Window:
    """A part of a long recording; `probs` and `ambiguity` are None where it is silent."""

    start: float
    end: float
    probs: dict[str, float] | None
    ambiguity: float | None


@dataclass(frozen=True)
class Prediction:
    """What listeners would say of one recording.

    Attributes:
        file: its name.
        seconds: its length.
        probs: the share of listeners by class; of a long recording the mean over its windows that are not silent.
        ambiguity: entropy of `probs` over log K, from 0 (all agree) to 1 (every class alike).
        interval: lowest and highest share by class, see `aer_jax.inference.band`; None where the run has no band,
            and for a recording in windows, for the band is about whole clips.
        timeline: the windows, in order; empty for a recording that was heard at once.
    """

    file: str
    seconds: float
    probs: dict[str, float]
    ambiguity: float
    interval: dict[str, tuple[float, float]] | None = None
    timeline: list[Window] = field(default_factory=list)

    @property
    def label(self) -> str:
        """The class of the largest share."""
        return max(self.probs, key=self.probs.__getitem__)

    def to_json(self) -> dict[str, Any]:
        """What `aer-jax predict --json` prints: shares to 6 digits; what is not known is not there."""
        found: dict[str, Any] = {
            "file": self.file,
            "seconds": round(self.seconds, 3),
            "probs": {name: round(p, 6) for name, p in self.probs.items()},
            "ambiguity": round(self.ambiguity, 6),
        }
        if self.interval:
            found["interval"] = {name: [round(p, 4) for p in ends] for name, ends in self.interval.items()}
            found["interval_level"] = bands.LEVEL
        if self.timeline:
            found["timeline"] = [
                {
                    "start": round(window.start, 3),
                    "end": round(window.end, 3),
                    "probs": window.probs and {name: round(p, 6) for name, p in window.probs.items()},
                    "ambiguity": None if window.ambiguity is None else round(window.ambiguity, 6),
                }
                for window in self.timeline
            ]
        return found


class Model:
    """A trained run, loaded to predict with.

    Args:
        run: an opened run whose first epoch is over.

    Attributes:
        classes: what its distributions are over, in order.
        band: the run's band, or None.

    Raises:
        UserError: the run has no best checkpoint yet, or it does not fit.
    """

    def __init__(self, run: Run):
        self._predictor = Predictor(run)
        self.classes = self._predictor.classes
        self.band = bands.load(run.path, self._predictor.step, self.classes)

    def stream(
        self, sources: Sequence[Source], window: float | None = None, hop: float | None = None
    ) -> Iterator[Prediction | BadAudio]:
        """One answer a recording, in order, as soon as it is there; for one that cannot be used, why.

        Files are decoded in threads ahead of the device; about half an hour of audio is held at a time, or a single
        recording that is longer.

        Args:
            sources: the recordings.
            window: seconds; what is longer is cut into windows of this length. None: what is longer than 30 s, into
                windows of 10 s.
            hop: seconds from one window's start to the next at most; a whole window where None. Windows are spread
                evenly, so that the last one ends with the recording.

        Raises:
            UserError: a window or hop that cannot be, or a transcript that is too long.
        """
        window, hop, longest = cutting(window, hop)
        self._refuse_long(sources)
        shapes_k2 = self._shapes(sources, window, longest)
        with ThreadPoolExecutor(_READERS) as pool:
            for chunk in _read_ahead(pool, sources, _CHUNK_BATCHES * self._predictor.batch):
                yield from self._chunk(chunk, window, hop, longest, shapes_k2)

    def _chunk(
        self,
        chunk: list[tuple[Source, np.ndarray | BadAudio]],
        window: int,
        hop: int,
        longest: int,
        shapes_k2: np.ndarray | None,
    ) -> list[Prediction | BadAudio]:
        clips: list[np.ndarray] = []
        words: list[str] = []
        plans: list[list[tuple[int, int, int | None]]] = []  # of each recording: start, end, index of its clip
        for source, audio_t in chunk:
            plan: list[tuple[int, int, int | None]] = []
            if not isinstance(audio_t, BadAudio):
                whole = len(audio_t) <= longest
                for start, end in [(0, len(audio_t))] if whole else cut(len(audio_t), window, hop):
                    part_t = audio_t[start:end]
                    heard = whole or _audible(part_t)
                    plan.append((start, end, len(clips) if heard else None))
                    if heard:
                        clips.append(part_t)
                        # The words of a whole recording are not those of a part.
                        words.append(source.transcript if whole else "")
            plans.append(plan)
        probs_nk = (
            self._predictor.predict_waveforms(clips, words, shapes_k2).astype(float) if clips else np.empty((0, 0))
        )
        probs_nk /= probs_nk.sum(axis=1, keepdims=True)
        answers: list[Prediction | BadAudio] = []
        for (source, audio_t), plan in zip(chunk, plans, strict=True):
            if isinstance(audio_t, BadAudio):
                answers.append(audio_t)
            else:
                answers.append(self._answer(source, len(audio_t), plan, probs_nk))
        return answers

    def _answer(
        self, source: Source, length: int, plan: list[tuple[int, int, int | None]], probs_nk: np.ndarray
    ) -> Prediction | BadAudio:
        rows = [row for *_, row in plan if row is not None]
        if not rows:
            return BadAudio("audio silent", f"{source.name} is silent in every window; remove it.")
        mean_k = probs_nk[rows].mean(axis=0)
        named = self._named(mean_k)
        level = float(ambiguity(mean_k[None])[0])
        if plan[0][:2] == (0, length):
            return Prediction(source.name, length / SAMPLE_RATE, named, level, self._interval(mean_k))
        timeline = [
            Window(
                start / SAMPLE_RATE,
                end / SAMPLE_RATE,
                None if row is None else self._named(probs_nk[row]),
                None if row is None else float(ambiguity(probs_nk[row][None])[0]),
            )
            for start, end, row in plan
        ]
        return Prediction(source.name, length / SAMPLE_RATE, named, level, None, timeline)

    def _interval(self, probs_k: np.ndarray) -> dict[str, tuple[float, float]] | None:
        if self.band is None:
            return None
        ends_k2 = self.band.around(probs_k[None])[0].tolist()
        return {name: (low, high) for name, (low, high) in zip(self.classes, ends_k2, strict=True)}

    def _named(self, probs_k: np.ndarray) -> dict[str, float]:
        return dict(zip(self.classes, map(float, probs_k), strict=True))

    def _refuse_long(self, sources: Sequence[Source]) -> None:
        prompt = self._predictor.prompt
        for source in sources:
            if source.transcript:
                seconds = min(source.seconds() or LONG_SECONDS, LONG_SECONDS)
                tokens = prompt.encode(source.transcript, "", max(1, round(seconds * SAMPLE_RATE)))
                prompt.refuse_long(source.name, len(tokens))

    def _shapes(self, sources: Sequence[Source], window: int, longest: int) -> np.ndarray | None:
        """Batch shapes for all recordings at once, by their headers, so that no chunk compiles its own."""
        lengths, words = [], []
        for source in sources:
            seconds = source.seconds()
            if seconds and seconds > 0:
                samples = int(seconds * SAMPLE_RATE) + 1
                whole = samples <= longest
                lengths.append(samples if whole else window)
                words.append(source.transcript if whole else "")
        return self._predictor.choose_shapes(lengths, words) if lengths else None


def cut(length: int, window: int, hop: int) -> list[tuple[int, int]]:
    """(start, end) of the fewest windows that cover a longer recording with starts no further apart than `hop`."""
    count = -(-(length - window) // hop) + 1
    starts = np.linspace(0, length - window, count).round().astype(int)
    return [(int(start), int(start) + window) for start in starts]


def cutting(window: float | None, hop: float | None) -> tuple[int, int, int]:
    """Samples of a window, of a hop, and of the longest recording that is heard at once.

    Raises:
        UserError: lengths that cannot be.
    """
    for name, length in (("window", window), ("hop", hop)):
        if length is not None and (not isinstance(length, int | float | np.number) or isinstance(length, bool)):
            raise UserError(f"the {name} is {length!r:.40}; give seconds as a number.")
    if window is not None and not SHORTEST_WINDOW <= window <= LONG_SECONDS:
        raise UserError(
            f"the window is {window:g} s; it must last {SHORTEST_WINDOW:g} to {LONG_SECONDS:g} s, what the audio tower "
            "hears at once."
        )
    seconds = window or WINDOW_SECONDS
    if hop is not None and not 0.1 <= hop <= seconds:
        raise UserError(
            f"the hop is {hop:g} s; it must last 0.1 s at least and no longer than a window ({seconds:g} s)."
        )
    samples, step = (round(length * SAMPLE_RATE) for length in (seconds, hop or seconds))
    return samples, step, samples if window else MAX_SAMPLES


def _audible(part_t: np.ndarray) -> bool:
    try:
        usable(Waveform(part_t, SAMPLE_RATE), "")
    except BadAudio:
        return False
    return True


def _read_ahead(
    pool: ThreadPoolExecutor, sources: Sequence[Source], most: int
) -> Iterator[list[tuple[Source, np.ndarray | BadAudio]]]:
    """Chunks of decoded recordings; the next one is read while the device has this one."""
    waiting: list[tuple[Source, Future]] = []
    chunk: list[tuple[Source, np.ndarray | BadAudio]] = []
    rest = iter(sources)
    held = 0.0

    def fill() -> None:
        while len(waiting) < 4 * _READERS and (source := next(rest, None)) is not None:
            waiting.append((source, pool.submit(_read, source)))

    fill()
    while waiting:
        source, future = waiting.pop(0)
        fill()
        audio_t = future.result()
        chunk.append((source, audio_t))
        held += 0.0 if isinstance(audio_t, BadAudio) else len(audio_t) / SAMPLE_RATE
        if len(chunk) >= most or held >= _CHUNK_SECONDS:
            yield chunk
            chunk, held = [], 0.0
    if chunk:
        yield chunk


def _read(source: Source) -> np.ndarray | BadAudio:
    try:
        return source.read()
    except BadAudio as error:
        return error
