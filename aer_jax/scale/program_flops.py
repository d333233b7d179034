"""Floating-point operations of a compiled program on one device, each loop's body as often as it runs."""

from __future__ import annotations

import math
import re

from aer_jax.scale.program import computations, how_often

_RESULT = re.compile(r"^\s*(?:ROOT )?%?([\w.~-]+) = \w+\[([\d,]*)\]")
_PRODUCT = re.compile(r" (dot|convolution)\(%?([\w.~-]+), %?([\w.~-]+)\)")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_KERNEL = re.compile(r"dim_labels=\w+_(\w+)->")


def program_flops(program: str) -> int:
    """Operations of the matrix products and convolutions, a multiplication and an addition being two.

    The same as `count_flops` of the traced function where one device computes all of it. What each device of a mesh
    computes stands in its program alone, and XLA's own count (`cost_analysis`) takes a loop's body, here a layer, once.

    Args:
        program: HLO text compiled for a CPU, where products stay instructions of their own, `compiled.as_text()`.

    Raises:
        ValueError: a loop around a product has no trip count that can be read.
    """
    bodies, total = computations(program), 0
    times = how_often(bodies)
    for name, lines in bodies.items():
        shapes = {match[1]: _sizes(match[2]) for line in lines if (match := _RESULT.match(line))}
        flops = sum(_flops(line, shapes) for line in lines)
        if flops:
            runs = times[name]
            if runs is None:
                raise ValueError(f"the trip count of the loop around the products in {name} is not constant")
            total += flops * runs
    return total


def _flops(line: str, shapes: dict[str, list[int]]) -> int:
    if not (product := _PRODUCT.search(line)):
        return 0
    kind, left, right = product.groups()
    outputs = math.prod(_sizes(_found(_RESULT, line)[2]))
    if kind == "dot":
        contracted = _sizes(_found(_CONTRACTED, line)[1])
        return 2 * outputs * math.prod(shapes[left][axis] for axis in contracted)
    kernel = _found(_KERNEL, line)[1]
    return 2 * outputs * math.prod(shapes[right]) // shapes[right][kernel.index("o")]


def _found(what: re.Pattern[str], line: str) -> re.Match[str]:
    """What every product says of itself."""
    if not (match := what.search(line)):
        raise ValueError(f"a product cannot be read: {line.strip()}")
    return match


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]
