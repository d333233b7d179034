"""The released code's optimizer and schedule in PyTorch."""

from collections.abc import Mapping

import torch
from torch import nn
from transformers import get_cosine_with_hard_restarts_schedule_with_warmup

from aer_jax.bench.workers.pytorch_model import PaperModel, paper_loss, parameter_groups


class PaperTraining:
    """AdamW with clipping, linear warm-up and one cosine, as the released code sets them up with transformers.

    Args:
        settings: lr, head_lr, weight_decay, clip_norm, entropy_weight, and `warmup` in steps.
    """

    def __init__(self, model: PaperModel, steps: int, settings: Mapping[str, float]):
        self.model, self.settings = model, settings
        rates = {"adapters": settings["lr"], "head": settings["head_lr"]}
        groups = [group | {"lr": rates[group["part"]]} for group in parameter_groups(model, settings["weight_decay"])]
        self.optimizer = torch.optim.AdamW(groups)
        self.schedule = get_cosine_with_hard_restarts_schedule_with_warmup(
            self.optimizer, int(settings["warmup"]), steps, num_cycles=1
        )

    def step(self, inputs: Mapping[str, torch.Tensor], target_bk: torch.Tensor) -> dict[str, float]:
        """One update; loss, learning rate of the adapters and gradient norm before clipping."""
        self.optimizer.zero_grad()
        loss = paper_loss(self.model(inputs), target_bk, self.settings["entropy_weight"])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(self.model.trained().values()), self.settings["clip_norm"])
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        return {"loss": loss.item(), "lr": rate, "grad_norm": norm.item()}
