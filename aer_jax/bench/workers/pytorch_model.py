"""The paper's model and loss in PyTorch: transformers, peft and torch.nn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from torch import nn
from transformers import (
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioModel,
    Qwen2AudioProcessor,
    Trainer,
)

IN_PROJECTION = "emotion_head.attention.in_proj_"


class TorchHead(nn.Module):
    """Self-attention over the last hidden states, read at the first valid position; then three normed layers."""

    def __init__(self, hidden_size: int, classes: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden_size, 8, batch_first=True)
        self.norm1, self.linear1 = nn.LayerNorm(hidden_size), nn.Linear(hidden_size, hidden_size)
        self.norm2, self.linear2 = nn.LayerNorm(hidden_size), nn.Linear(hidden_size, hidden_size // 2)
        self.norm3, self.linear3 = nn.LayerNorm(hidden_size // 2), nn.Linear(hidden_size // 2, classes)
        self.gelu = nn.GELU()

    def forward(self, hidden_bth: torch.Tensor, mask_bt: torch.Tensor) -> torch.Tensor:
        attended_bth, _ = self.attention(hidden_bth, hidden_bth, hidden_bth, key_padding_mask=mask_bt == 0)
        first_b = mask_bt.argmax(dim=1)
        x_bh = attended_bth[torch.arange(len(first_b)), first_b]
        x_bh = x_bh + self.gelu(self.linear1(self.norm1(x_bh)))
        return self.linear3(self.norm3(self.gelu(self.linear2(self.norm2(x_bh)))))


class PaperModel(nn.Module):
    """Qwen2-Audio without its output layer, peft's LoRA, and the paper's head; no dropout.

    Args:
        checkpoint: directory; transformers reads the weights.
        trainables: every adapter and head tensor by its name here, see `named_tensors`; they stay float32.
        targets: what peft adapts, the paper's modules or a pattern on the whole name.
        dtype: of the base.
    """

    def __init__(
        self,
        checkpoint: Path,
        classes: int,
        rank: int,
        alpha: float,
        trainables: Mapping[str, np.ndarray],
        targets: str | Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj"),
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        base = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype, local_files_only=True)
        targets = targets if isinstance(targets, str) else list(targets)
        settings = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # it need not be whole
            lora_dropout=0.0,
            target_modules=targets,
        )
        self.adapted = peft.get_peft_model(base, settings)
        self.emotion_head = TorchHead(base.config.get_text_config().hidden_size, classes)
        given, own = set(trainables), set(self.named_tensors())
        assert given == own, f"not known here: {sorted(given - own)}; missing: {sorted(own - given)}"
        with torch.no_grad():
            for name, tensor in self.named_tensors().items():
                assert tensor.shape == trainables[name].shape, name
                tensor.copy_(torch.from_numpy(trainables[name].copy()))

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits [batch, classes] for what the processor returned."""
        return self.emotion_head(self.hidden(inputs).float(), inputs["attention_mask"])

    def as_published(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The same logits by way of the whole model, as the released code asks for them: every layer's states are kept
        and the output layer computes the whole vocabulary's logits at every position.
        """
        hidden_bth = self.adapted(**inputs, output_hidden_states=True).hidden_states[-1]
        return self.emotion_head(hidden_bth.float(), inputs["attention_mask"])

    @property
    def base(self) -> Qwen2AudioModel:
        """Audio tower and language model, adapted."""
        whole = self.adapted.get_base_model()
        assert isinstance(whole, Qwen2AudioForConditionalGeneration)
        return whole.model

    def hidden(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The language model's states after its last norm."""
        return self.base(**inputs, use_cache=False).last_hidden_state

    def cut_window(self, frames: int) -> None:
        """Set the audio tower's window in mel frames, instead of 30 s.

        transformers insists on as many frames as its table of positions has room for, so the table is cut.
        """
        tower = self.base.audio_tower
        if not hasattr(self, "_positions"):
            self._positions = tower.embed_positions.weight.detach()
        tower.config.max_source_positions = frames // 2
        tower.embed_positions.weight = nn.Parameter(self._positions[: frames // 2], requires_grad=False)

    def trained(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by torch's names."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def named_tensors(self, *, gradients: bool = False) -> dict[str, torch.Tensor]:
        """Views of the trainables or of their gradients; the attention's packed projection is cut into q, k and v."""
        tensors = {}
        for name, parameter in self.trained().items():
            tensor = parameter.grad if gradients else parameter.detach()
            assert tensor is not None, f"{name} has no gradient"
            if name.startswith(IN_PROJECTION):
                for part, view in zip("qkv", tensor.chunk(3), strict=True):
                    tensors[f"emotion_head.{part}_proj.{name.removeprefix(IN_PROJECTION)}"] = view
            else:
                tensors[name.replace(".attention.out_proj.", ".out_proj.")] = tensor
        return tensors


def paper_inputs(
    processor: Qwen2AudioProcessor, texts: Sequence[str], audio: Sequence[np.ndarray]
) -> Mapping[str, torch.Tensor]:
    """What transformers' processor makes of rendered prompts and 16 kHz waveforms: padded on the left, and to 30 s."""
    return processor(
        text=list(texts),
        audio=list(audio),
        sampling_rate=16_000,
        return_tensors="pt",
        padding=True,
        padding_side="left",
    )


def paper_loss(logits_bk: torch.Tensor, target_bk: torch.Tensor, entropy_weight: float, eps: float = 1e-10):
    """Mean Jensen-Shannon divergence (nats) plus the weighted entropy of the prediction."""
    p_bk = logits_bk.softmax(dim=-1)
    m_bk = (p_bk + target_bk) / 2

    def kl(a_bk, b_bk):
        return (a_bk * ((a_bk + eps).log() - (b_bk + eps).log())).sum(dim=-1)

    divergence_b = (kl(p_bk, m_bk) + kl(target_bk, m_bk)) / 2
    entropy_b = -(p_bk * (p_bk + eps).log()).sum(dim=-1)
    return (divergence_b + entropy_weight * entropy_b).mean()


def parameter_groups(model: PaperModel, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups of adapters and head, weight decay where transformers' Trainer has it: on no bias and no norm."""
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]  # it needs no trainer
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.trained().items():
        part = "head" if name.startswith("emotion_head") else "adapters"
        groups.setdefault((part, name in decayed), []).append(parameter)
    return [
        {"params": parameters, "part": part, "weight_decay": weight_decay if decay else 0.0}
        for (part, decay), parameters in groups.items()
    ]
