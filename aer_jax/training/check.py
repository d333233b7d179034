"""Checks of settings before anything is loaded; imports no JAX."""

from __future__ import annotations

import dataclasses
import re

from aer_jax.config import Config
from aer_jax.errors import UserError
from aer_jax.files.typed_settings import build


def check(config: Config) -> None:
    """Refuse a run whose settings cannot work, whatever the devices.

    Raises:
        UserError: one is missing, out of range, or does not fit another.
    """
    build(Config, dataclasses.asdict(config), "the settings")  # one made in Python, too, has its ranges
    needed = {"out": config.out, "data.dataset": config.data.dataset, "model.checkpoint": config.model.checkpoint}
    for name, given in needed.items():
        if not given:
            raise UserError(f"{name} is not set; add it to the config file or as {name}=... on the command line.")
    for target in config.model.lora.targets:
        try:
            re.compile(target)
        except re.error as error:
            raise UserError(f'model.lora.targets: "{target}" is no regular expression ({error}); correct it.') from None
    batch, microbatch = config.train.batch, config.train.microbatch
    if batch % microbatch:
        raise UserError(f"train.batch {batch} must be a multiple of train.microbatch {microbatch}; change one of them.")
    if dataclasses.astuple(config.mesh).count(-1) > 1:
        raise UserError("mesh: -1 stands for all devices that are left, so it can be given to one axis alone.")
    head, adapter = config.model.head, config.model.adapter
    if config.train.epochs == 0 and (head == "paper" or (head == "readout" and adapter)):
        raise UserError(
            "train.epochs is 0, which fits a readout to a frozen base: the paper's head and model.adapter need "
            "at least 1."
        )
    if config.train.fit and (head == "paper" or (head == "readout" and adapter)):
        raise UserError(
            "train.fit fits a readout to a frozen base, so it goes neither with the paper's head nor with "
            "model.adapter; leave one of them out."
        )
