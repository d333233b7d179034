"""The command that shows every setting of a run: key, value, meaning and range; one line each."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aer_jax.bounds import Range
from aer_jax.cli.command import Command, show


def config(args: argparse.Namespace) -> None:
    from aer_jax.config import load_config

    settings = load_config(args.config, args.settings)
    lines = [(key, str(_plain(value)), about) for key, value, about in described(settings)]
    # A long list of patterns must not push every other line to the right.
    key_width, value_width = (min(32, max(len(line[i]) for line in lines)) for i in (0, 1))
    text = "\n".join(f"{key:<{key_width}}  {value:<{value_width}}  {about}" for key, value, about in lines)
    show(args, {key: _plain(value) for key, value, _ in described(settings)}, text)


def described(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(key, value, what it means and may be) of each setting, from the docstrings and types of the dataclasses."""
    about = _attributes(type(settings))
    for name, kind in typing.get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value):
            yield from described(value, f"{prefix}{name}.")
        else:
            allowed = _allowed(kind)
            yield f"{prefix}{name}", value, about[name] + (f" ({allowed})" if allowed else "")


def _attributes(cls: type) -> dict[str, str]:
    section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}


def _allowed(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return " ".join(str(extra) for extra in args[1:] if isinstance(extra, Range))
    if origin is typing.Literal:
        return ", ".join(map(str, args))
    return ", or ".join(filter(None, map(_allowed, args))) if origin is not tuple else ""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def add(command: Command) -> None:
    """Define config."""
    sub = command(
        config,
        "show every setting of a run: its value, meaning and range",
        "config recipe=paper",
    )
    sub.add_argument("--config", type=Path, help="YAML file whose values are shown instead of the defaults")
    sub.add_argument("settings", nargs="*", metavar="key=value", help="on top of it")
