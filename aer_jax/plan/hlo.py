"""The text of a compiled program (HLO): its computations, and how often the loops around each let it run."""

from __future__ import annotations

import re
from collections import defaultdict

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.~-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations|branch_computations)=\{?((?:%[\w.~-]+(?:, )?)+)\}?")
_LOOP = re.compile(r" while\(.*condition=%?([\w.~-]+), body=%?([\w.~-]+)")


def computations(program: str) -> dict[str, list[str]]:
    """Name -> its instructions; the entry's name is "ENTRY"."""
    bodies: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in program.splitlines():
        if match := _COMPUTATION.match(line):
            lines = bodies["ENTRY" if line.startswith("ENTRY") else match[1]] = []
        else:
            lines.append(line)
    return bodies


def how_often(bodies: dict[str, list[str]]) -> dict[str, int | None]:
    """How often each of the `computations` runs in one run; None where a loop's trip count is not constant."""
    calls: dict[str, list[tuple[str, int | None]]] = defaultdict(list)  # callee -> (caller, times a call)
    for name, lines in bodies.items():
        for line in lines:
            if match := _LOOP.search(line):
                trips = _trips(line, bodies.get(match[1], []))
                calls[match[2]].append((name, trips))
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
