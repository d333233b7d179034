"""Listeners: the paper's bands, seeded by index."""

from aer_jax.proxies.listeners import BANDS, listener


def test_temperatures_lie_in_their_bands():
    for index in range(200):
        low, high = BANDS[index % 5]
        temperature = listener(index).temperature
        assert max(0.1, low - 0.05) <= temperature <= min(1.0, high + 0.05)
        assert listener(index) == listener(index)
    assert len({listener(index).temperature for index in range(0, 200, 5)}) > 30


def test_personas_in_turn():
    personas = ("a", "b", "c", "d", "e")
    assert "".join(listener(index).persona(personas) for index in range(7)) == "abcdeab"


def test_seeds_differ_and_fit_json():
    seeds = {listener(i).seed(u) for i in range(20) for u in ("a", "b", "1/a")}
    assert len(seeds) == 60 and all(0 <= seed < 2**48 for seed in seeds)
