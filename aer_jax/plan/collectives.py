"""What chips send each other, read from a compiled program: kind, bytes, and how often the loops around it run."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from aer_jax.plan.hlo import computations, how_often

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_BYTES |= {"s64": 8, "u64": 8, "c64": 8}

_OPERATION = re.compile(
    rf"^\s*(?:ROOT )?%?[\w.~-]+ = (.+?) ({'|'.join(KINDS)})(-start)?\(", re.ASCII
)  # the result's shape, the kind, and whether another instruction waits for it
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """Collectives of one kind and group size in one step.

    Attributes:
        kind: one of KINDS.
        group: chips that take part in each.
        count: how many run.
        payload: bytes of all results together, on one chip.
        wire: bytes that one chip sends for them around a ring.
    """

    kind: str
    group: int
    count: int
    payload: int
    wire: int


def collectives(program: str, chips: int) -> list[Collective]:
    """The collectives of a compiled program, those inside loops counted as often as the loops run.

    A collective that runs beside computation is written in several pieces that share its channel; it counts once.

    Args:
        program: HLO text, `compiled.as_text()`.
        chips: of the program; the group of a collective that names none.

    Returns:
        one entry a kind and group size, most bytes first.

    Raises:
        ValueError: a loop around a collective has no trip count, or a collective no groups, that can be read.
    """
    bodies = computations(program)
    times = how_often(bodies)
    seen: set[tuple[str, ...]] = set()
    found: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])  # -> how many, bytes
    for name, lines in bodies.items():
        for line in lines:
            if not (match := _OPERATION.match(line)):
                continue
            result, kind, starts = match.groups()
            channel = re.search(r"channel_id=(\d+)", line)
            key = (kind, channel[1]) if channel else (kind, name, line)
            if key in seen:
                continue
            seen.add(key)
            runs = times[name]
            if runs is None:
                raise ValueError(f"the trip count of the loop around {line.split(' = ')[0].strip()} is not constant")
            total = found[kind, _group(line, chips)]
            total[0] += runs
            total[1] += runs * _payload(result, kind, bool(starts))
    rows = [
        Collective(kind, group, count, payload, round(payload * _share(kind, group)))
        for (kind, group), (count, payload) in found.items()
    ]
    return sorted(rows, key=lambda row: -row.wire)


def _share(kind: str, group: int) -> float:
    """Bytes sent a byte of result, around a ring of `group` (Patarasuk and Yuan, 2009)."""
    if kind == "collective-permute":
        return 1.0
    others = (group - 1) / group
    return {"all-gather": others, "all-to-all": others, "all-reduce": 2 * others, "reduce-scatter": group - 1}[kind]


def _payload(result: str, kind: str, starts: bool) -> int:
    """Bytes of the results; a start other than an all-reduce's hands on its operands before them, and counters."""
    arrays = [(dtype, [int(size) for size in shape.split(",") if size]) for dtype, shape in _SHAPE.findall(result)]
    if starts and kind != "all-reduce":
        arrays = [(dtype, shape) for dtype, shape in arrays if shape]
        arrays = arrays[len(arrays) // 2 :]
    return sum(_BYTES.get(dtype, 1) * math.prod(shape) for dtype, shape in arrays)


def _group(line: str, chips: int) -> int:
    """Chips in each group, from any of the ways in which XLA writes them."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\))? \{([^}]*)\}", line):
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        # A part of an axis is written 'axis':(before)size.
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part) if part else sizes[axis] for axis, part in axes)
    if re.search(r"replica_groups=(?!\{\})", line):
        raise ValueError(f"groups of chips that cannot be read: {line.strip()[:300]}")
    return chips
