"""Who is asked when: in turns where both have room, one after the other where they have not."""

from typing import Any, cast

import pytest

from aer_jax.bench.driver import BenchWorker, compare


class Told:
    """A side that writes down what happens to it."""

    def __init__(self, name: str, device: str, log: list[str]):
        self.name, self.about, self.log = name, {"device": device, "name": name}, log
        log.append(f"{name} starts")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.log.append(f"{self.name} ends")

    def ask(self, way: str) -> str:
        self.log.append(way)
        return f"{way} by {self.name}"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ["jax starts", "torch starts", *["ours", "careful", "loop"] * 2, "torch ends"]),
        (
            "NVIDIA H100",
            ["jax starts", "ours", "ours", "jax ends", "torch starts", *["careful", "loop"] * 2, "torch ends"],
        ),
    ],
)
def test_an_accelerator_holds_one_side_at_a_time(device, expected):
    log: list[str] = []

    def side(name: str) -> BenchWorker:
        return cast(BenchWorker, Told(name, device, log))

    def ask(side: Any, way: str) -> str:
        return side.ask(way)

    answers, theirs = compare(side("jax"), lambda: side("torch"), ["ours", "careful", "loop"], ask, 2, "bench")
    assert log == expected
    assert answers == {
        "ours": ["ours by jax"] * 2,
        "careful": ["careful by torch"] * 2,
        "loop": ["loop by torch"] * 2,
    }
    assert theirs["name"] == "torch"
