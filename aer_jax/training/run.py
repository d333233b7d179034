"""A run directory: its settings, what it ran on, its log and its checkpoints."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from aer_jax.config import Config, load_config, to_yaml
from aer_jax.errors import UserError
from aer_jax.models.fingerprint import fingerprint

PACKAGES = ("aer-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


@dataclasses.dataclass(frozen=True)
class Run:
    """Paths and settings of one run.

    Attributes:
        path: the directory.
        config: resolved settings.
        environment: classes, base fingerprint, versions, devices.
    """

    path: Path
    config: Config
    environment: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes predicted, in order."""
        return tuple(self.environment["classes"])

    def evaluation(self, split: str) -> Path:
        """Where predictions and metrics of a split are written."""
        return self.path / "evaluation" / split


def create_run(config: Config, classes: Sequence[str]) -> Run:
    """Make a new run directory; a start that failed before its first step is begun anew.

    Raises:
        UserError: the directory cannot be made, or already holds a run.
    """
    path = Path(config.out)
    if (path / "metrics.jsonl").exists():
        raise UserError(f"{path} already holds a run; continue it with --resume, remove it, or choose another out=.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "dime_aug.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run directory {path} ({error.strerror}); choose another out=.") from None
    devices = jax.devices()
    environment = {
        "classes": list(classes),
        "base": fingerprint(config.model.checkpoint),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }
    (path / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")
    (path / "config.yaml").write_text(to_yaml(config))
    return Run(path, config, environment)


def add_facts(run: Run, **facts: Any) -> None:
    """Write down what a run found out about itself, beside its environment."""
    if {**run.environment, **facts} == run.environment:
        return  # a resumed run finds the same; a file that is not written cannot be cut short
    run.environment.update(facts)
    (run.path / "environment.json").write_text(json.dumps(run.environment, indent=2) + "\n")


def open_run(path: str | Path) -> Run:
    """Open a run directory, finished or not.

    Raises:
        UserError: it is none, or its base checkpoint is gone or another one now.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file() or not (path / "environment.json").is_file():
        raise UserError(
            f"{path} is not a run directory (no config.yaml and environment.json); `aer-jax train` makes one."
        )
    config = load_config(path / "config.yaml")
    try:
        environment = json.loads((path / "environment.json").read_text())
    except ValueError:
        raise UserError(f"{path}/environment.json is not JSON; copy the run again.") from None
    checkpoint = config.model.checkpoint
    try:
        base = fingerprint(checkpoint)
    except UserError as error:
        raise UserError(f"the base of {path} is gone: {error}") from None
    if base != environment["base"]:
        raise UserError(f"{checkpoint} is not the base that {path} was trained on; put the same checkpoint there.")
    return Run(path, config, environment)


def resume_run(config: Config) -> Run:
    """Open the run of `config.out` to continue it.

    Raises:
        UserError: there is none, or it was begun with other settings; the differences are shown.
    """
    run = open_run(config.out)
    changed = [
        f"{name}: {was!r} -> {now!r}"
        for (name, was), (_, now) in zip(flat(run.config), flat(config), strict=True)
        if was != now and name != "out" and not name.startswith("mesh.")
    ]
    if changed:
        raise UserError(f"{run.path} was begun with other settings ({'; '.join(changed)}); resume with the same ones.")
    return dataclasses.replace(run, config=config)


def flat(settings: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """("section.key", value) of every setting."""
    pairs = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        nested = dataclasses.is_dataclass(value)
        pairs += flat(value, f"{prefix}{field.name}.") if nested else [(f"{prefix}{field.name}", value)]
    return pairs
