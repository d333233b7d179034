"""Collective communication, read from the text of a compiled program (HLO).

XLA's `cost_analysis` and `memory_analysis` know no collectives, and count the body of a loop once; a step is loops over
layers and microbatches. Kind, group and bytes stand in the text alone.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_BYTES |= {"s64": 8, "u64": 8, "c64": 8}

# The result's shape, the kind, and whether another instruction waits for it.
_OPERATION = re.compile(rf"^\s*(?:ROOT )?%?[\w.~-]+ = (.+?) ({'|'.join(KINDS)})(-start)?\(", re.ASCII)
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.~-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations|branch_computations)=\{?((?:%[\w.~-]+(?:, )?)+)\}?")
_LOOP = re.compile(r" while\(.*condition=%?([\w.~-]+), body=%?([\w.~-]+)")


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

    A collective that runs next to computation is written in several pieces that share its channel; it counts once.

    Args:
        program: `compiled.as_text()`.
        chips: of the program; the group of a collective that names none.

    Returns:
        one entry per kind and group size, most bytes first.

    Raises:
        ValueError: a loop around a collective has no trip count, or a collective no groups, that can be read.
    """
    bodies = _computations(program)
    runs = _run_counts(bodies)
    seen: set[tuple[str, ...]] = set()
    totals: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])  # -> how many, bytes
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
            times = runs[name]
            if times is None:
                raise ValueError(f"the trip count of the loop around {line.split(' = ')[0].strip()} is not constant")
            total = totals[kind, _group(line, chips)]
            total[0] += times
            total[1] += times * _payload(result, kind, bool(starts))
    rows = [
        Collective(kind, group, count, payload, round(payload * _share_sent(kind, group)))
        for (kind, group), (count, payload) in totals.items()
    ]
    return sorted(rows, key=lambda row: -row.wire)


def _share_sent(kind: str, group: int) -> float:
    """Bytes sent per byte of result, around a ring of `group` (Patarasuk and Yuan, 2009)."""
    others = (group - 1) / group
    return {
        "all-gather": others,
        "all-to-all": others,
        "all-reduce": 2 * others,
        "reduce-scatter": group - 1,
        "collective-permute": 1.0,
    }[kind]


def _payload(result: str, kind: str, starts: bool) -> int:
    """Bytes of the results; a start other than an all-reduce's hands on its operands before them, and counters."""
    arrays = [(dtype, [int(size) for size in shape.split(",") if size]) for dtype, shape in _SHAPE.findall(result)]
    if starts and kind != "all-reduce":
        arrays = [(dtype, shape) for dtype, shape in arrays if shape]
        arrays = arrays[len(arrays) // 2 :]
    return sum(_BYTES.get(dtype, 1) * math.prod(shape) for dtype, shape in arrays)


def _group(line: str, chips: int) -> int:
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


def _computations(program: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            lines = bodies["ENTRY" if line.startswith("ENTRY") else match[1]] = []
        else:
            lines.append(line)
    return bodies


def _run_counts(bodies: dict[str, list[str]]) -> dict[str, int | None]:
    """How often each computation runs in one run of the program; None where a loop's trip count is not constant."""
    calls: dict[str, list[tuple[str, int | None]]] = defaultdict(list)  # callee -> (caller, times per call)
    for name, lines in bodies.items():
        for line in lines:
            if match := _LOOP.search(line):
                calls[match[2]].append((name, _trips(line, bodies.get(match[1], []))))
            for called in _CALLED.findall(line):
                for callee in re.findall(r"[\w.~-]+", called):
                    calls[callee].append((name, 1))
    known: dict[str, int | None] = {"ENTRY": 1}

    def times(name: str) -> int | None:
        if name not in known:
            known[name] = 0  # nothing calls itself
            pairs = [(times(caller), own) for caller, own in calls[name]]
            products = [n * own for n, own in pairs if n is not None and own is not None]
            # The pieces of one collective are called from one loop; more than one caller does not mean more runs.
            known[name] = max(products, default=1) if len(products) == len(pairs) else None
        return known[name]

    return {name: times(name) for name in bodies}


def _trips(loop: str, condition: list[str]) -> int | None:
    """Trip count: as the compiler noted it, or the constant that the loop's counter, from zero, stays below."""
    if noted := re.search(r"known_trip_count[^\d]*(\d+)", loop):
        return int(noted[1])
    constants = [int(match[1]) for line in condition if (match := re.search(r" constant\((\d+)\)", line))]
    below = any("direction=LT" in line for line in condition)
    return constants[0] if below and len(constants) == 1 else None
