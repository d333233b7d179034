"""Run directory: settings, environment, log and checkpoints."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from aer_jax.base.fingerprint import is_base
from aer_jax.config import Config, load_config, to_yaml
from aer_jax.errors import UserError
from aer_jax.files.atomic import replace_text
from aer_jax.files.content_hash import DIGEST, seal
from aer_jax.files.json_text import parse_json
from aer_jax.files.locks import locked
from aer_jax.files.provenance import provenance
from aer_jax.training.checkpoint import latest_step
from aer_jax.training.input_hashes import input_hashes, refuse_other_inputs

# What may differ when a run goes on: where things lie (what lies there is compared), on which devices and in how much
# memory it computes, how often it is saved.
_FREE = (
    "out",
    "data.dataset",
    "labels.journal",
    "model.checkpoint",
    "train.checkpoint_minutes",
    "mesh.",
    "model.remat",
)
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

    @property
    def epochs(self) -> list[int]:
        """Planned numbers of epochs: several where the run was extended."""
        return [*(stage["epochs"] for stage in self.environment.get("extended", [])), self.config.train.epochs]

    def evaluation(self, split: str) -> Path:
        """Where predictions and metrics of a split are written."""
        return self.path / "evaluation" / split


def create_run(config: Config, classes: Sequence[str]) -> Run:
    """Make a new run directory; one that failed before its first step is made anew.

    Raises:
        UserError: the directory cannot be made, or already holds a run.
    """
    path = _make_directory(Path(config.out))
    if holds_run(config):
        raise UserError(f"{path} already holds a run; continue it with --resume, remove it, or choose another out=.")
    (path / "dime_aug.json").unlink(missing_ok=True)
    devices = jax.devices()
    learns_from = input_hashes(config)
    environment = {
        "classes": list(classes),
        "base": learns_from["model.checkpoint"],
        "learns_from": learns_from,
        "biases_decay": False,  # as in every run of the versions that do not say so
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "provenance": provenance(),
    }
    run = Run(path, config, environment)
    _write(run)
    return run


@contextmanager
def locked_run(path: str | Path) -> Iterator[None]:
    """Lock a run directory for one training; it is made where needed, and not kept where nothing was written.

    Raises:
        UserError: another process trains there, or the directory cannot be made.
    """
    path = _make_directory(Path(path))
    try:
        with locked(path / ".train.lock", f"{path} is being trained"):
            yield
    finally:
        with suppress(OSError):
            path.rmdir()  # only where it is empty


def _make_directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run directory {path} ({error.strerror}); choose another out=.") from None
    return path


def holds_run(config: Config) -> bool:
    """Whether `config.out` holds a run that got as far as its first step."""
    return (Path(config.out) / "metrics.jsonl").exists()


def add_facts(run: Run, **facts: Any) -> None:
    """Add facts about a run to its environment."""
    if {**run.environment, **facts} == run.environment:
        return  # a file that is not written cannot be cut short
    run.environment.update(facts)
    _write(run)


def _identity(environment: Mapping[str, Any]) -> str:
    """Digest of what a run's weights and predictions depend on, so that a slip in the file is noticed."""
    return seal({name: environment.get(name) for name in ("classes", "learns_from", "settings")})[DIGEST]


def _write(run: Run) -> None:
    settings = {name: value for name, value in flat(run.config) if not name.startswith(_FREE)}
    run.environment["settings"] = json.loads(json.dumps(settings))
    run.environment["identity"] = _identity(run.environment)
    replace_text(run.path / "environment.json", json.dumps(run.environment, indent=2) + "\n")
    replace_text(run.path / "config.yaml", to_yaml(run.config))


def open_run(path: str | Path) -> Run:
    """Open a run directory, finished or not.

    Raises:
        UserError: it is none, or its base checkpoint is gone or another one now.
    """
    run = read_run(path)
    checkpoint = run.config.model.checkpoint
    try:
        same = is_base(run.environment["base"], checkpoint)
    except UserError as error:
        raise UserError(f"the base of {path} is gone: {error}") from None
    if not same:
        raise UserError(f"{checkpoint} is not the base that {path} was trained on; put the same checkpoint there.")
    return run


def read_run(path: str | Path) -> Run:
    """Settings and environment of a run directory, without a check of its base.

    Raises:
        UserError: it is none.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file() or not (path / "environment.json").is_file():
        raise UserError(
            f"{path} is not a run directory (no config.yaml and environment.json); `aer-jax train` makes one."
        )
    config = load_config(path / "config.yaml")
    environment = _read_environment(path / "environment.json")
    refuse_edited(path, config, environment)
    return Run(path, config, environment)


def refuse_edited(path: Path, config: Config, environment: dict[str, Any]) -> None:
    """Refuse a config.yaml that was edited after the run began.

    Raises:
        UserError: it was; the differences are shown.
    """
    written, extended = environment.get("settings", {}), environment.get("extended", [])
    now = json.loads(json.dumps(dict(flat(config))))
    changed = [name for name, value in written.items() if name in now and now[name] != value]
    if changed == ["train.epochs"] and extended and extended[-1]["epochs"] == config.train.epochs:
        extended.pop()  # killed between the two files: not extended yet
        return
    if changed:
        raise UserError(
            f"{path / 'config.yaml'} is not what was written ("
            + "; ".join(f"{name}: {written[name]!r} -> {now[name]!r}" for name in changed)
            + f"); put that back: `aer-jax train --resume {path} train.epochs=N` extends a run, other settings need a "
            "new one."
        )


def _read_environment(file: Path) -> dict[str, Any]:
    try:
        environment = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        why = "is not JSON" if isinstance(error, ValueError) else f"cannot be read ({error.strerror})"
        raise UserError(f"{file} {why}; copy the run again.") from None
    names = environment.get("classes", []) if isinstance(environment, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file} is damaged (it names no classes); copy the run again.")
    if not isinstance(environment.get("base"), str) or not isinstance(environment.get("learns_from", {}), dict):
        raise UserError(f"{file} is damaged (it does not say what the run learned from); copy the run again.")
    if "settings" in environment and environment.get("identity") not in (None, _identity(environment)):
        raise UserError(f"{file} is not what was written; copy the run again.")
    return environment


def resume_run(config: Config) -> Run:
    """Open the run of `config.out` to continue it.

    More epochs than it was begun with extend it. Other packages or devices than it began with are allowed, said and
    written down: the numbers may then differ in their last digits.

    Raises:
        UserError: there is none, it was begun with other settings (the differences are shown), or what the settings
            point to is not what it was.
    """
    run = read_run(config.out)
    _extend(run, config)
    run = dataclasses.replace(run, config=config)
    now: dict[str, Any] = {"packages": {name: version(name) for name in PACKAGES}, "devices": len(jax.devices())}
    was = {name: run.environment[name] for name in now}
    if others := [
        f"{name} {was['packages'].get(name)} -> {new}"
        for name, new in now["packages"].items()
        if was["packages"].get(name) != new
    ]:
        print(f"{run.path} goes on with other packages than it began with: {', '.join(others)}", file=sys.stderr)
    if now != was or "resumed_with" in run.environment:
        run.environment["resumed_with"] = now
    _write(run)
    return run


def _extend(run: Run, config: Config) -> None:
    """Refuse changed settings, but for more epochs, which are written down in the environment."""
    begun, epochs = run.config.train.epochs, config.train.epochs
    if epochs <= begun:
        return refuse_changed(run, config)
    if begun == 0:
        raise UserError(
            f"{run.path} fitted a readout alone (train.epochs is 0), so it cannot be extended; begin a new run, with "
            "train.fit=true to start from a fitted readout."
        )
    refuse_changed(run, dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=begun)))
    if (step := latest_step(run.path / "checkpoints")) is not None:  # else it begins from the start anyway
        run.environment["extended"] = [*run.environment.get("extended", []), {"epochs": begun, "step": step}]
        print(
            f"{run.path} is extended from {begun} to {epochs} epochs: in the added ones the learning rate warms up "
            "again and falls to zero, and early stopping counts anew",
            file=sys.stderr,
        )


def refuse_changed(run: Run, config: Config) -> None:
    """Refuse settings or input files that differ from those the run began with.

    Raises:
        UserError: it was begun with others; the differences are shown.
    """
    changed = [
        f"{name}: {was!r} -> {now!r}"
        for (name, was), (_, now) in zip(flat(run.config), flat(config), strict=True)
        if was != now and not name.startswith(_FREE)
    ]
    if changed:
        raise UserError(f"{run.path} was begun with other settings ({'; '.join(changed)}); resume with the same ones.")
    began_with = run.environment.get("learns_from", {"model.checkpoint": run.environment["base"]})
    refuse_other_inputs(run.path, config, began_with)


def flat(settings: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """("section.key", value) of every setting."""
    pairs = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        nested = dataclasses.is_dataclass(value)
        pairs += flat(value, f"{prefix}{field.name}.") if nested else [(f"{prefix}{field.name}", value)]
    return pairs
