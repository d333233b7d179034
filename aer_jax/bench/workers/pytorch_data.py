"""The paper's input pipeline in PyTorch, timed in a process of its own that `bench_data` starts and asks.

Each clip is read by librosa from its WAV file, augmented by librosa, and every batch goes through transformers'
processor, which pads audio to 30 s for the log-mel spectrogram and tokenizes the prompts. The DataLoader works in this
process: on one core, workers beside it would only add the sending of tensors.

It reads a job from its first line (see `bench_data`) with the visits to make, answers with what it heard, and then
times one epoch for each further line.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import librosa
import numpy as np
import torch
from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

from aer_jax.worker_process import serve

RATE = 16_000


class Clips(torch.utils.data.Dataset):
    """Visits as the paper's dataset makes them: read, perhaps change, cut at 30 s."""

    def __init__(self, visits: list[list[Any]], files: dict[str, str], most: int):
        self.visits, self.files, self.most = visits, files, most
        self.seconds: dict[str, float] = defaultdict(float)

    def __len__(self) -> int:
        return len(self.visits)

    def __getitem__(self, i: int) -> tuple[np.ndarray, str]:
        id, semitones, tempo, text = self.visits[i]
        start = time.perf_counter()
        audio_t = librosa.load(self.files[id], sr=RATE)[0][: self.most]
        read = time.perf_counter()
        if semitones != 0:
            audio_t = librosa.effects.pitch_shift(audio_t, sr=RATE, n_steps=semitones)
        if tempo != 1:
            audio_t = librosa.effects.time_stretch(audio_t, rate=tempo)
        self.seconds["decode"] += read - start
        self.seconds["augment"] += time.perf_counter() - read
        return audio_t, text


class TimedFeatures(WhisperFeatureExtractor):
    """Notes how long it takes."""

    seconds = 0.0

    def __call__(self, *args: Any, **settings: Any) -> Any:
        start = time.perf_counter()
        features = super().__call__(*args, **settings)
        self.seconds += time.perf_counter() - start
        return features


class Epoch:
    """One epoch over the visits.

    Attributes:
        heard: [utterance, samples, root mean square] of each visit's augmented audio.
        frames: mel frames of a row, which says that it was padded.
    """

    def __init__(self, job: dict[str, Any]):
        torch.set_num_threads(1)
        self.clips = Clips(job["visits"], job["files"], round(job["max_seconds"] * RATE))
        processor = Qwen2AudioProcessor.from_pretrained(job["checkpoint"], local_files_only=True)
        self.features = TimedFeatures(feature_size=job["mels"])
        self.processor = Qwen2AudioProcessor(self.features, processor.tokenizer, processor.chat_template)
        self.loader = torch.utils.data.DataLoader(self.clips, batch_size=job["batch"], collate_fn=self._collate)
        self._processing = 0.0
        self.heard: list[list[Any]] = []
        for i, (id, *_) in enumerate(job["visits"]):
            audio_t, _ = self.clips[i]
            self.heard.append([id, len(audio_t), float(np.sqrt(np.mean(np.square(audio_t, dtype=float))))])
        self.frames = next(iter(self.loader))["input_features"].shape[-1]

    def time(self) -> dict[str, float]:
        """Seconds for all clips, part by part, and of the whole loop."""
        self.clips.seconds.clear()
        self.features.seconds = self._processing = 0.0
        start = time.perf_counter()
        for _ in self.loader:
            pass
        whole = time.perf_counter() - start
        mel = self.features.seconds
        return {**self.clips.seconds, "batch": self._processing - mel, "mel": mel, "all": whole}

    def _collate(self, rows: list[tuple[np.ndarray, str]]) -> Any:
        start = time.perf_counter()
        audio, texts = map(list, zip(*rows, strict=True))
        batch = self.processor(text=texts, audio=audio, sampling_rate=RATE, padding=True, return_tensors="pt")
        self._processing += time.perf_counter() - start
        return batch


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    epoch = Epoch(job)
    epoch.time()
    return {"heard": epoch.heard, "frames": epoch.frames}, lambda _: epoch.time()


if __name__ == "__main__":
    serve(start)
