"""The exported model as a PyTorch user rebuilds it: heads of torch.nn modules on transformers' Qwen2-Audio."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import gelu
from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor


class PaperHead(nn.Module):
    """The published head, evaluation mode."""

    def __init__(self, about: dict):
        super().__init__()
        h, classes = about["hidden_size"], len(about["classes"])
        self.attention = nn.MultiheadAttention(h, about["attention_heads"], batch_first=True)
        self.norm1, self.linear1 = nn.LayerNorm(h), nn.Linear(h, h)
        self.norm2, self.linear2 = nn.LayerNorm(h), nn.Linear(h, h // 2)
        self.norm3, self.linear3 = nn.LayerNorm(h // 2), nn.Linear(h // 2, classes)

    def forward(self, hidden_bth, statistics_be):
        x_bh = self.attention(hidden_bth, hidden_bth, hidden_bth)[0][:, 0]
        x_bh = x_bh + gelu(self.linear1(self.norm1(x_bh)))
        return self.linear3(self.norm3(gelu(self.linear2(self.norm2(x_bh)))))


class ReadoutHead(nn.Module):
    """Standardised statistics of every audio layer and the last state, and one linear layer."""

    def __init__(self, about: dict):
        super().__init__()
        self.sizes = about["audio_size"], about["hidden_size"]
        self.linear = nn.Linear(sum(self.sizes), len(about["classes"]))
        self.register_buffer("mean", torch.zeros(sum(self.sizes)))
        self.register_buffer("deviation", torch.ones(sum(self.sizes)))

    def forward(self, hidden_bth, statistics_be):
        x_be = (torch.cat([statistics_be, hidden_bth[:, -1, : self.sizes[1]]], 1) - self.mean) / self.deviation
        return self.linear(torch.cat([part / part.shape[1] ** 0.5 for part in x_be.split(self.sizes, 1)], 1))


def read_about(folder: Path) -> dict:
    return json.loads((folder / "emotion_head.json").read_text())


def load_base(folder: Path, about: dict) -> Qwen2AudioForConditionalGeneration:
    """transformers' model in float32 with an untrained head."""
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.emotion_head = {"paper": PaperHead, "readout": ReadoutHead}[about["head"]](about)
    return model.eval()


def load_head(model, folder: Path) -> None:
    model.emotion_head.load_state_dict(load_file(folder / "emotion_head.safetensors"))


@torch.no_grad()
def predict(model, processor_folder: Path, about: dict, clips, transcripts) -> np.ndarray:
    """Distributions [clips, classes], one clip at a time, padded to 30 s as transformers wants it."""
    processor = Qwen2AudioProcessor.from_pretrained(processor_folder)
    probs = []
    for clip, words in zip(clips, transcripts, strict=True):
        text = about["prompt"].replace("{transcript}", words)
        inputs = processor(text=text, audio=[clip], sampling_rate=16000, return_tensors="pt")
        layers = []
        hooks = [
            layer.register_forward_hook(lambda module, given, out, layers=layers: layers.append(out))
            for layer in model.model.audio_tower.layers
        ]
        hidden_bth = model.model(**inputs).last_hidden_state
        for hook in hooks:
            hook.remove()
        frames = (int(inputs["feature_attention_mask"].sum()) - 1) // 2 + 1
        statistics = []
        for out in layers:
            x_btd = (out[0] if isinstance(out, tuple) else out)[:, :frames]
            statistics += [x_btd.mean(1), (x_btd.var(1, correction=0) + 1e-6).sqrt()]
        probs.append(torch.softmax(model.emotion_head(hidden_bth, torch.cat(statistics, 1)), -1)[0].numpy())
    return np.array(probs)
