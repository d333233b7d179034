"""Who is asked when: in turns where both have room, one after the other where they have not."""

from typing import cast

import pytest

from aer_jax.bench.driver import BenchWorker, take_turns


class Recorder:
    """A worker that writes down what happens to it."""

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
        ("cpu", ["jax starts", "torch starts", *["ours", "careful", "loop"] * 2, "torch ends", "jax ends"]),
        (
            "NVIDIA H100",
            ["jax starts", "ours", "ours", "jax ends", "torch starts", *["careful", "loop"] * 2, "torch ends"],
        ),
    ],
)
def test_an_accelerator_holds_one_worker_at_a_time(device, expected):
    log: list[str] = []

    def worker(name: str) -> BenchWorker:
        return cast(BenchWorker, Recorder(name, device, log))

    answers, abouts = take_turns(
        (worker("jax"), ["ours"]),
        [(lambda: worker("torch"), ["careful", "loop"])],
        lambda worker, way, turn: f"{worker.ask(way)}, turn {turn}",
        2,
        "bench",
    )
    assert log == expected
    sides = {"ours": "jax", "careful": "torch", "loop": "torch"}
    assert answers == {way: [f"{way} by {name}, turn {turn}" for turn in range(2)] for way, name in sides.items()}
    assert [about["name"] for about in abouts] == ["jax", "torch"]
