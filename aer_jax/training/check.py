"""Settings that cannot work are refused before anything is loaded."""

from __future__ import annotations

import math

import jax

from aer_jax.base_config import read_config
from aer_jax.config import Config
from aer_jax.errors import UserError
from aer_jax.models.safetensors_files import Checkpoint
from aer_jax.models.sharding import row_blocks


def check(config: Config, mesh: jax.sharding.Mesh) -> None:
    """Refuse a run whose settings cannot work.

    Args:
        config: the settings.
        mesh: the devices that the run would be divided over.

    Raises:
        UserError: one is missing, out of range, or does not fit another; or there is no checkpoint.
    """
    needed = {"out": config.out, "data.dataset": config.data.dataset, "model.checkpoint": config.model.checkpoint}
    for name, given in needed.items():
        if not given:
            raise UserError(f"{name} is not set; add it to the config file or as {name}=... on the command line.")
    read_config(config.model.checkpoint)
    Checkpoint(config.model.checkpoint)
    batch, microbatch = config.train.batch, config.train.microbatch
    divides = row_blocks(mesh)
    if microbatch < 1 or batch % microbatch or microbatch % divides:
        raise UserError(
            f"train.batch {batch} must be a multiple of train.microbatch {microbatch}, and that one of the {divides} "
            "devices along data and fsdp."
        )
    if config.train.epochs == 0 and (config.model.head != "readout" or config.model.adapter):
        raise UserError(
            "train.epochs is 0, which fits a readout to what the frozen base hears: the paper's head and model.adapter "
            "need at least 1."
        )
    if config.train.fit and (config.model.head != "readout" or config.model.adapter):
        raise UserError(
            "train.fit fits a readout to what the frozen base hears, so it goes neither with the paper's head nor with "
            "model.adapter; leave one of them out."
        )
    lora = config.model.lora
    bounds = {
        "seed": (config.seed, 0, 2**31 - 1),
        "model.lora.rank": (lora.rank, 1, math.inf),
        "model.lora.dropout": (lora.dropout, 0, 0.99),
        "train.epochs": (config.train.epochs, 0, math.inf),
        "train.patience": (config.train.patience, 1, math.inf),
        "train.lr": (config.train.lr, 0, math.inf),
        "train.head_lr": (config.train.head_lr, 0, math.inf),
        "train.weight_decay": (config.train.weight_decay, 0, math.inf),
        "train.warmup": (config.train.warmup, 0, 1),
        "train.clip_norm": (config.train.clip_norm, 1e-9, math.inf),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise UserError(f"{name} is {value}; it must lie between {least} and {most}.")
