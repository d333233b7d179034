"""Typed settings: YAML and `key=value` as frozen dataclasses, keys, types and ranges checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from aer_jax.bounds import Range, number
from aer_jax.errors import UserError, nearest
from aer_jax.files import strict_yaml
from aer_jax.files.atomic import refuse_remote

MOST_BYTES = 2**20  # of a config file

LocalPath = Annotated[str, "a path on a mounted disk"]


def read_settings(path: str | Path | None, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """A YAML file with overrides on top, not yet checked, and where it stands in words.

    Raises:
        UserError: the file is missing or not YAML, or an override is none.
    """
    settings: dict[str, Any] = {}
    where = "the command line"
    if path is not None:
        where = str(path)
        settings = _read_file(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(
                f'"{short(override)}" is not an override; write section.key=value, for instance train.epochs=3.'
            )
        try:
            value = strict_yaml.load(text)
        except strict_yaml.BadYaml:
            raise UserError(f'the value of "{short(override)}" is not valid YAML; quote it.') from None
        node = settings
        *sections, leaf = key.split(".")
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise UserError(f'"{short(key)}": {short(section)} is a value, not a section.')
        node[leaf] = value
    return settings, where


def _read_file(path: str | Path) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the config {path}: {why}; check the path.") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} is larger than a megabyte, so it is no config; check the path.")
    try:
        settings = strict_yaml.load(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not valid YAML: it is not UTF-8 text; save it as UTF-8.") from None
    except strict_yaml.BadYaml as error:
        raise UserError(f"{path} is not valid YAML: {error}.") from None
    if not isinstance(settings, dict | None):
        raise UserError(f"{path} must hold `key: value` lines, not {type(settings).__name__}.")
    return settings or {}


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`top` over `base`, section by section."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def build(cls: type, settings: dict[str, Any], where: str) -> Any:
    """`settings` as a frozen dataclass; errors name `where` they stand.

    Raises:
        UserError: a key is unknown, or a value has the wrong type or is out of range.
    """
    return _Builder(where, cls).section(cls, settings, "")


@dataclasses.dataclass(frozen=True)
class _Builder:
    where: str
    root: type

    def section(self, cls: type, settings: Any, prefix: str) -> Any:
        hints = typing.get_type_hints(cls, include_extras=True)
        values = {}
        for key, value in self._mapping(settings, prefix.rstrip(".")).items():
            name = f"{prefix}{key}"
            if key not in hints:
                hint = nearest(str(key), hints) or self._elsewhere(key, value)
                raise UserError(f'{self.where}: unknown key "{short(name)}".{hint} Known here: {", ".join(hints)}.')
            values[key] = self.value(hints[key], value, name)
        return cls(**values)

    def value(self, kind: Any, value: Any, name: str) -> Any:
        """`value` as `kind`, by the form of the type."""
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin is Annotated:
            return self._annotated(args[1], self.value(args[0], value, name), name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return self.section(kind, value, f"{name}.")
        if origin is dict:
            return self._mapping(value, name)
        if origin is Literal:
            if value not in args:
                raise self._wrong(name, value, f"one of {', '.join(map(str, args))}")
            return value
        if origin in (types.UnionType, typing.Union):
            return self._union(args, value, name)
        if origin is tuple:
            values = value if isinstance(value, list | tuple) else [value]
            return tuple(self.value(args[0], one, name) for one in values)
        return self._scalar(kind, value, name)

    def _mapping(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UserError(f"{self.where}: {name} is a section; write its keys below it.")
        return value

    def _annotated(self, extra: Any, value: Any, name: str) -> Any:
        if isinstance(extra, Range) and value not in extra:
            raise UserError(f"{self.where}: {name} is {number(value)}; it must lie {extra}.")
        if extra is typing.get_args(LocalPath)[1]:
            refuse_remote(value, f"{self.where}: {name}")
            if "\0" in value:
                raise UserError(f"{self.where}: {name} holds a zero byte, which no path can; remove it.")
        return value

    def _union(self, args: tuple[Any, ...], value: Any, name: str) -> Any:
        words = [word for arg in args[1:] for word in typing.get_args(arg)]
        if value in words or (value is None and type(None) in args):
            return value
        if words and isinstance(value, str) and _float(value) is None:
            raise self._wrong(name, value, f"a number or {', '.join(words)}")
        return self.value(args[0], value, name)

    def _scalar(self, kind: type, value: Any, name: str) -> Any:
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        # YAML reads 1e-4 as text.
        if kind is float and not isinstance(value, bool) and (as_float := _float(value)) is not None:
            return as_float
        hint = ""
        if kind is str and isinstance(value, bool | int | float):
            hint = f"; where it is meant as text, put it in quotes: '\"{short(value)}\"'"
        raise UserError(f"{self.where}: {name} must be {kind.__name__}, not {short(repr(value))}{hint}.")

    def _wrong(self, name: str, value: Any, right: str) -> UserError:
        return UserError(f'{self.where}: {name} is "{short(value)}"; it must be {right}.')

    def _elsewhere(self, key: Any, value: Any) -> str:
        """' Did you mean "train.lr"?' for a key, or the one below it, that belongs to another section; else ''."""
        while isinstance(value, dict) and len(value) == 1:
            [(key, value)] = value.items()
        names = [f'"{name}"' for name in _dotted_names(self.root) if name.rpartition(".")[2] == key]
        return f" Did you mean {' or '.join(names)}?" if names else ""


def _dotted_names(cls: type, prefix: str = "") -> Iterator[str]:
    for name, kind in typing.get_type_hints(cls).items():
        yield prefix + name
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _dotted_names(kind, f"{prefix}{name}.")


def _float(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | str) else None
    except (ValueError, OverflowError):  # the latter of whole numbers with hundreds of digits
        return None


def short(value: Any) -> str:
    """A value in at most 80 characters, for an error sentence."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
