"""Floating-point operations of a compiled program on one device, each loop's body as often as it runs."""

from __future__ import annotations

import math
import re

from aer_jax.scale.program import computations, how_often

_RESULT = re.compile(r"^\s*(?:ROOT )?%?([\w.~-]+) = \w+\[([\d,]*)\]")
_PRODUCT = re.compile(r" (dot|convolution)\(%?([\w.~-]+), %?([\w.~-]+)\)")


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
        if flops and times[name] is None:
            raise ValueError(f"the trip count of the loop around the products in {name} is not constant")
        total += flops and flops * times[name]
    return total


def _flops(line: str, shapes: dict[str, list[int]]) -> int:
    if not (product := _PRODUCT.search(line)):
        return 0
    kind, left, right = product.groups()
    outputs = math.prod(_sizes(_RESULT.match(line)[2]))
    if kind == "dot":
        contracted = _sizes(re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line)[1])
        return 2 * outputs * math.prod(shapes[left][axis] for axis in contracted)
    kernel = re.search(r"dim_labels=\w+_(\w+)->", line)[1]
    return 2 * outputs * math.prod(shapes[right]) // shapes[right][kernel.index("o")]


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]
