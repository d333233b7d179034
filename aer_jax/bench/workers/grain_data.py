"""aer_jax's input pipeline, for `bench_data`; each message times one epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grain
import jax
import numpy as np

from aer_jax.data.batching.batches import Batch, train_batches
from aer_jax.data.dataset import open_dataset
from aer_jax.data.examples import real_examples
from aer_jax.data.prompt import PromptEncoder
from aer_jax.models.log_mel import log_mel
from aer_jax.worker_process import serve


class GrainEpoch:
    """One epoch over the job's clips.

    Attributes:
        visits: [utterance, semitones, tempo, prompt as text] in the order of the batches.
        signals: [utterance, samples, root mean square] of each visit's augmented audio.
        prompt_seconds: per clip, to tokenize its prompt, once per run.
    """

    def __init__(self, job: dict[str, Any]):
        dataset, ids, settings = open_dataset(job["dataset"]), job["ids"], job["data"]
        prompt = PromptEncoder(job["checkpoint"], dataset.classes, speaker=True)
        start = time.perf_counter()
        uniform_nk = np.full((len(ids), len(dataset.classes)), 1 / len(dataset.classes))
        examples = real_examples(ids, uniform_nk)
        self.stream = train_batches(examples, dataset, prompt, batch=job["batch"], seed=job["seed"], **settings)
        self.prompt_seconds = (time.perf_counter() - start) / len(ids)
        self.mel = jax.jit(lambda audio_bs: log_mel(audio_bs, job["mels"]))
        self.visits: list[list[Any]] = []
        self.signals: list[list[Any]] = []
        for number in range(self.stream.steps_per_epoch):
            batch = self.stream.read(number)
            for row, clip in enumerate(self.stream.contents(number)):
                utterance = dataset.utterances[clip["utterance"]]
                audio_t = batch["audio"][row, : batch["audio_samples"][row]]
                text = prompt.text(utterance.transcript, utterance.speaker)
                self.visits.append([utterance.id, clip["semitones"], clip["tempo"], text])
                self.signals.append([utterance.id, len(audio_t), float(np.sqrt(np.mean(np.square(audio_t))))])

    def time(self) -> dict[str, float]:
        """Seconds for all clips: of the host's work, and with the log-mel that an accelerator makes otherwise."""
        start = time.perf_counter()
        for _ in self._batches():
            pass
        host = time.perf_counter()
        for batch in self._batches():
            self.mel(batch["audio"]).block_until_ready()
        return {"host": host - start, "all": time.perf_counter() - host}

    def _batches(self) -> Iterator[Batch]:
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        return iter(grain.MapDataset.range(self.stream.steps_per_epoch).map(self.stream.read).to_iter_dataset(options))


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    epoch = GrainEpoch(job)
    epoch.time()
    about = {"visits": epoch.visits, "signals": epoch.signals, "prompt_seconds": epoch.prompt_seconds}
    return about, lambda _: epoch.time()


if __name__ == "__main__":
    serve(start)
