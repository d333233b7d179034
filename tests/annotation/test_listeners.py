"""Listeners: crossed by default, coupled as in the paper, each of them the same however many there are."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.annotation.listeners import BANDS, TEMPERATURES, coupled, crossed
from aer_jax.errors import UserError

PERSONAS = ("a", "b", "c", "d", "e")


def test_five_listeners_have_each_persona_and_each_temperature_and_25_all_pairs():
    people = crossed(25, PERSONAS)
    assert [person.index for person in people] == list(range(25))
    for block in range(5):
        some = people[5 * block : 5 * block + 5]
        assert {person.persona for person in some} == set(PERSONAS)
        assert {person.temperature for person in some} == set(TEMPERATURES)
    assert len({(person.persona, person.temperature) for person in people}) == 25


@given(st.integers(1, 7), st.integers(1, 7))
def test_any_numbers_of_personas_and_temperatures_are_crossed(personas, temperatures):
    names, levels = [f"p{i}" for i in range(personas)], [i / 10 for i in range(temperatures)]
    people = crossed(2 * personas * temperatures, names, levels)
    pairs = Counter((person.persona, person.temperature) for person in people)
    assert len(pairs) == personas * temperatures and set(pairs.values()) == {2}
    assert people[:3] == crossed(3, names, levels)[: len(people)]


@pytest.mark.parametrize("temperature", [-0.1, 2.1, float("nan")])
def test_temperatures_out_of_range(temperature):
    with pytest.raises(UserError, match="between 0 and 2"):
        crossed(3, PERSONAS, (0.5, temperature))


def test_the_papers_pairs():
    people = coupled(200, PERSONAS)
    for person in people:
        low, high = BANDS[person.index % 5]
        assert person.persona == PERSONAS[person.index % 5]
        assert max(0.1, low - 0.05) <= person.temperature <= min(1.0, high + 0.05)
    assert people[:7] == coupled(7, PERSONAS)
    assert len({person.temperature for person in people[::5]}) > 30


def test_seeds_differ_and_fit_json():
    seeds = {person.seed(u) for person in crossed(20, PERSONAS) for u in ("a", "b", "1/a")}
    assert len(seeds) == 60 and all(0 <= seed < 2**48 for seed in seeds)
