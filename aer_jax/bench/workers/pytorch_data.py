"""The paper's input pipeline in PyTorch, for `bench_data`; each message times one epoch.

Each clip is read by librosa from its WAV file, augmented by librosa, and every batch goes through transformers'
processor, which pads audio to 30 s for the log-mel spectrogram and tokenizes the prompts. The DataLoader works in this
process: on one core, workers of its own would only add the sending of tensors.
"""

from __future__ import annotations

import time
from typing import Any

import librosa
import numpy as np
import torch
from transformers import Qwen2AudioProcessor, WhisperFeatureExtractor

from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.worker_process import serve


class Clips(torch.utils.data.Dataset):
    """Visits as the paper's dataset makes them: read, perhaps change, cut at 30 s."""

    def __init__(self, visits: list[list[Any]], files: dict[str, str], most: int):
        self.visits, self.files, self.most = visits, files, most

    def __len__(self) -> int:
        return len(self.visits)

    def __getitem__(self, i: int) -> tuple[np.ndarray, str]:
        id, semitones, tempo, text = self.visits[i]
        audio_t = librosa.load(self.files[id], sr=SAMPLE_RATE)[0][: self.most]
        if semitones != 0:
            audio_t = librosa.effects.pitch_shift(audio_t, sr=SAMPLE_RATE, n_steps=semitones)
        if tempo != 1:
            audio_t = librosa.effects.time_stretch(audio_t, rate=tempo)
        return audio_t, text


def start(job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    torch.set_num_threads(1)
    clips = Clips(job["visits"], job["files"], round(job["data"]["max_seconds"] * SAMPLE_RATE))
    published = Qwen2AudioProcessor.from_pretrained(job["checkpoint"], local_files_only=True)
    features = WhisperFeatureExtractor(feature_size=job["mels"])
    processor = Qwen2AudioProcessor(features, published.tokenizer, published.chat_template)

    def collate(rows: list[tuple[np.ndarray, str]]) -> Any:
        audio, texts = map(list, zip(*rows, strict=True))
        return processor(text=texts, audio=audio, sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt")

    loader = torch.utils.data.DataLoader(clips, batch_size=job["batch"], collate_fn=collate)

    def epoch() -> dict[str, float]:
        begin = time.perf_counter()
        for _ in loader:
            pass
        seconds = time.perf_counter() - begin
        return {"host": seconds, "all": seconds}

    signals = []
    for i, (id, *_) in enumerate(clips.visits):
        audio_t, _ = clips[i]
        signals.append([id, len(audio_t), float(np.sqrt(np.mean(np.square(audio_t))))])
    epoch()
    return {"signals": signals, "frames": next(iter(loader))["input_features"].shape[-1]}, lambda _: epoch()


if __name__ == "__main__":
    serve(start)
