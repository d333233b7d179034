"""Batch-independent sampling: Gumbel noise seeded by the question, then argmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor


class GumbelSampler(LogitsProcessor):
    """Turns greedy decoding into sampling, row by row: argmax(logits / T + Gumbel noise) ~ softmax(logits / T).

    Each row has its own temperature and its own noise, seeded by (seed, step), so what it says does not depend
    on the batch that it is in.

    Args:
        temperatures: one a row.
        seeds: one a row.
    """

    def __init__(self, temperatures: Sequence[float], seeds: Sequence[int]):
        self.temperatures, self.seeds, self.step = temperatures, seeds, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] to perturbed float32 scores of the same shape; at temperature 0 as they are."""
        noise = [
            np.random.default_rng((seed, self.step)).gumbel(size=scores.shape[-1]) * (temperature > 0)
            for seed, temperature in zip(self.seeds, self.temperatures, strict=True)
        ]
        self.step += 1
        temperatures = [temperature or 1.0 for temperature in self.temperatures]
        temperature_n1 = torch.tensor(temperatures, device=scores.device)[:, None]
        noise_nv = torch.from_numpy(np.stack(noise)).to(scores.device, torch.float32)
        return scores.float() / temperature_n1 + noise_nv
