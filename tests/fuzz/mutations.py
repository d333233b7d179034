"""Seeded damage: bytes, JSON values and files of a folder, and the count of what came of each."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aer_jax.errors import UserError

LONGEST_SENTENCE, SLOWEST = 700, 20.0  # characters, seconds
# What text files are damaged with: separators, quotes, line ends that are none, marks, halves of characters.
ODD_BYTES = [
    b"\0", b"\xff", b"\n", b"\r", b"\r\n", b'"', b"'", b",", b";", b"\t", b":", b"{", b"}", b"[", b"]", b"#", b"&a ",
    b"*a", b"- ", b"!!python/object:os.system ", b"\xe2\x80\xa8", b"\xc2\x85", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"\\ud800", b"NaN", b"1e999", b"-1", b"null", b"nan", b"9" * 5000, b"[" * 100_000, b'{"a":' * 100_000,
]  # fmt: skip
DEEP, HUGE = "@deep@", "@huge@"  # in place of what json.dumps cannot write
ODD_VALUES = [
    None, True, False, 0, 1, -1, 0.5, 1e308, float("nan"), float("inf"), 10**400, -(10**30), "", " ", "x", "nan", "0",
    "a;b", "\u2028", "\ud800", "\0", "é", [], {}, [[]], [None], {"a": 1}, [1, "x"], {"": {}}, "x" * 10_000, DEEP, HUGE,
]  # fmt: skip


def flip(data: bytes, rng: random.Random) -> bytes:
    """One byte changed."""
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])]) + data[place + 1 :]


def damage(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done, and the result: as disks, transfers, editors and hands damage a file."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    near = min(len(data), a + rng.choice([1, 2, 4, 16, 100, 1000]))
    c, d = sorted(rng.randrange(b, len(data) + 1) for _ in range(2))
    ways: dict[str, Callable[[], bytes]] = {
        "flip": lambda: flip(data, rng),
        "flips": lambda: flip(flip(flip(data, rng), rng), rng),
        "insert": lambda: data[:a] + rng.randbytes(rng.choice([1, 2, 3, 50])) + data[a:],
        "insert odd": lambda: data[:a] + rng.choice(ODD_BYTES) + data[a:],
        "overwrite odd": lambda: data[:a] + rng.choice(ODD_BYTES) + data[near:],
        "delete": lambda: data[:a] + data[near:],
        "delete much": lambda: data[:a] + data[b:],
        "cut": lambda: data[:a],
        "cut the beginning": lambda: data[a:],
        "swap": lambda: data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:],
        "repeat": lambda: data[:near] + data[a:],
        "repeat all": lambda: data + data,
        "zeros": lambda: data[:a] + bytes(near - a) + data[near:],
        "append": lambda: data + rng.choice([b"\n", b"\0" * 100, rng.randbytes(100), b"x"]),
        "empty": lambda: b"",
        "UTF-16": lambda: data.decode("latin-1").encode("utf-16"),
        "CRLF": lambda: data.replace(b"\n", b"\r\n"),
    }
    way = rng.choice(list(ways))
    return way, ways[way]()


def change_value(value: Any, rng: random.Random) -> tuple[str, bytes]:
    """One member of a JSON value changed, as JSON."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    parent, key = rng.choice(places)
    way = rng.choice(["replace", "replace", "replace", "remove", "rename", "exchange", "repeat"])
    if way == "rename" and isinstance(parent, dict):
        parent[rng.choice([key.upper(), key + "s", key[:-1], "", DEEP[1:]])] = parent.pop(key)
    elif way == "remove":
        del parent[key]
    elif way == "exchange":
        other, at = rng.choice(places)
        parent[key], other[at] = other[at], parent[key]
    elif way == "repeat" and isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        way, parent[key] = "replace", rng.choice(ODD_VALUES)
    try:
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    except ValueError:  # a part was exchanged with the whole
        text = "{}"
    text = text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).replace(f'"{HUGE}"', "9" * 5000)
    return f"{way} {key}", text.encode("utf-8", "surrogatepass")


def _places(value: Any):
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


@dataclass
class Tally:
    """What came of the damage to one kind of input.

    Attributes:
        kind: its name.
        counts: "refused" in a sentence, "as before", "changed" where the damage changed what nothing can check, and the
            two that must not be: "silently wrong" and "traceback".
        problems: the first of these, with their seeds.
    """

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def record(self, what: str, read: Callable[[], Any], judge: Callable[[Any], str | None], names: str = "") -> None:
        """Read one damaged input.

        Args:
            what: seed and damage.
            read: the product's function.
            judge: of its result: "" as before, None changed in what nothing can check, else what is wrong.
            names: what a refusal must name.
        """
        start = time.perf_counter()
        try:
            result = read()
        except UserError as error:
            said = str(error)
            whole = "\n" not in said and len(said) <= LONGEST_SENTENCE and names in said
            self._count("refused" if whole else "traceback", f"{what}: {said[:300]!r}")
        except Exception as error:
            self._count("traceback", f"{what}: {type(error).__name__}: {str(error)[:300]!r}")
        else:
            wrong = judge(result)
            outcome = {"": "as before", None: "changed"}.get(wrong, "silently wrong")
            self._count(outcome, f"{what}: {wrong}")
        if time.perf_counter() - start > SLOWEST:
            self._count("traceback", f"{what}: took {time.perf_counter() - start:.0f} s")

    def _count(self, outcome: str, problem: str) -> None:
        self.counts[outcome] += 1
        if outcome in ("traceback", "silently wrong"):
            self.problems.append(f"{outcome}: {problem}")

    def __str__(self) -> str:
        order = ("refused", "as before", "changed", "silently wrong", "traceback")
        total = f"{self.kind}: {self.counts.total():,} inputs"
        return ", ".join([total, *(f"{self.counts[outcome]:,} {outcome}" for outcome in order)])


def times() -> int:
    """How many times as long as usual: AER_JAX_FUZZ."""
    return int(os.environ.get("AER_JAX_FUZZ", "1"))
