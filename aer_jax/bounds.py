"""Ranges of numbers, declared next to a setting or a flag and named in error sentences."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Range:
    """Finite numbers from `least` to `most`.

    Attributes:
        above: `least` itself is not in it.
        also: one number outside that is allowed, too.
        unit: said behind the numbers.
    """

    least: float
    most: float
    above: bool = False
    also: float | None = None
    unit: str = ""

    def __contains__(self, value: float) -> bool:
        low = self.least < value if self.above else self.least <= value
        return value == self.also or (low and value <= self.most)  # NaN is neither

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        words = "above {} and at most {}" if self.above else "between {} and {}"
        also = "" if self.also is None else f", or be {number(self.also)}"
        return words.format(number(self.least), number(self.most)) + unit + also


SEED = Range(0, 2**31 - 1)
COUNT = Range(1, 1_000_000)


def number(value: float) -> str:
    """A number as one writes it: 0.0001, 2147483647, 1e+30."""
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a number of more than 30 digits"
    return f"{value:g}"


def whole(allowed: Range) -> Callable[[str], int]:
    """For argparse: a whole number in a range."""
    return _reader(int, "whole number", allowed)


def real(allowed: Range) -> Callable[[str], float]:
    """For argparse: a number in a range."""
    return _reader(float, "number", allowed)


def _reader(kind: type[_Number], what: str, allowed: Range) -> Callable[[str], _Number]:
    def read(text: str) -> _Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f'"{text[:40]}" is no {what}; it must lie {allowed}') from None
        if value not in allowed:
            raise argparse.ArgumentTypeError(f"{text[:40]} is out of range; it must lie {allowed}")
        return value

    return read
