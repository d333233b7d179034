"""Our input pipeline, timed in a process of its own that `bench_data` starts and asks.

It reads a job from its first line (see `bench_data`), answers with what it will visit, and then times one epoch for
each further line.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from aer_jax.data import augment
from aer_jax.data.batching.buckets import ALONE, BatchPlan, Buckets, Draws
from aer_jax.data.batching.collate import collate
from aer_jax.data.dataset import open_dataset
from aer_jax.data.examples import real_examples
from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.log_mel import log_mel
from aer_jax.worker_process import serve


class Epoch:
    """One epoch over the job's clips: what is visited, and how long each part of it takes.

    Attributes:
        visits: [utterance, semitones, tempo, prompt as text] in the order of the batches.
        heard: [utterance, samples, root mean square] of each visit's augmented audio.
        prompt_seconds: a clip, to tokenize its prompt, once a run.
    """

    def __init__(self, job: dict[str, Any]):
        self.dataset = open_dataset(job["dataset"])
        self.prompt = PromptEncoder(job["checkpoint"], self.dataset.classes, speaker=True)
        start = time.perf_counter()
        flat_nk = np.full((len(job["ids"]), len(self.dataset.classes)), 1 / len(self.dataset.classes))
        self.buckets = Buckets(
            real_examples(job["ids"], flat_nk),
            self.dataset,
            self.prompt,
            shapes=job["shapes"],
            batch=job["batch"],
            max_seconds=job["max_seconds"],
            host=ALONE,
        )
        self.prompt_seconds = (time.perf_counter() - start) / len(job["ids"])
        samples_n = self.buckets.samples_n
        changes = augment.draw(samples_n, samples_n.max(), job["augment"], np.random.default_rng(job["seed"]))
        draws = Draws(np.arange(len(samples_n)), *changes)
        self.buckets.choose(draws, augment.SLOWEST if job["augment"] > 0 else 1.0)
        self.plans: list[BatchPlan] = self.buckets.plan(draws)
        self.mel = jax.jit(lambda audio_bs: log_mel(audio_bs, job["mels"]))
        self.visits = [visit for plan in self.plans for visit in self._visits(plan)]
        self.heard = [
            [id, len(audio_t), float(np.sqrt(np.mean(np.square(audio_t, dtype=float))))]
            for (id, *_), audio_t in zip(self.visits, self._augmented(self._decoded()), strict=True)
        ]

    def time(self) -> dict[str, float]:
        """Seconds for all clips, part by part, each alone; and of the whole stream, as training runs it."""
        seconds: dict[str, float] = {}
        start = time.perf_counter()

        def lap(name: str) -> None:
            nonlocal start
            seconds[name] = time.perf_counter() - start
            start = time.perf_counter()

        audio = self._decoded()
        lap("decode")
        audio = self._augmented(audio)
        lap("augment")
        batches = list(self._batches(audio))
        lap("batch")
        for batch in batches:
            self.mel(batch["audio"]).block_until_ready()
        lap("mel")
        for _ in self._stream():
            pass
        lap("host")
        for batch in self._stream():
            self.mel(batch["audio"]).block_until_ready()
        lap("all")
        return seconds

    def _visits(self, plan: BatchPlan) -> list[list[Any]]:
        named = []
        for row, semitones, tempo in zip(*plan.draws, strict=True):
            utterance = self.dataset.utterances[self.buckets.examples[row].first]
            text = self.prompt.text(utterance.transcript, utterance.speaker)
            named.append([utterance.id, float(semitones), float(tempo), text])
        return named

    def _decoded(self) -> list[np.ndarray]:
        return [self.dataset.audio(id)[: self.buckets.most] for id, *_ in self.visits]

    def _augmented(self, audio: list[np.ndarray]) -> list[np.ndarray]:
        visits = zip(audio, self.visits, strict=True)
        return [augment.augment(audio_t, semitones, tempo) for audio_t, (_, semitones, tempo, _) in visits]

    def _batches(self, audio: list[np.ndarray]):
        done = 0
        for plan in self.plans:
            clips = audio[done : done + len(plan.draws.rows)]
            done += len(clips)
            spoken = [self.dataset.utterances[self.buckets.examples[row].spoken] for row in plan.draws.rows]
            tokens = [
                self.prompt.encode(u.transcript, u.speaker, len(audio_t))
                for u, audio_t in zip(spoken, clips, strict=True)
            ]
            window, text_length = self.buckets.shapes[plan.shape]
            yield collate(
                clips,
                tokens,
                np.array([self.buckets.examples[row].target for row in plan.draws.rows]),
                plan.draws.rows,
                batch=self.buckets.batch_rows,
                window=window,
                text_length=text_length,
                pad_id=self.prompt.pad_id,
                prefix=self.buckets.prefix,
            )

    def _stream(self):
        return iter(self.buckets.iter_dataset(lambda i: self.buckets.batch(self.plans[i]), len(self.plans)))


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    epoch = Epoch(job)
    epoch.time()
    about = {"visits": epoch.visits, "heard": epoch.heard, "prompt_seconds": epoch.prompt_seconds}
    return about, lambda _: epoch.time()


if __name__ == "__main__":
    serve(start)
