"""Strict parsing: exactly one label, however it is dressed, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aer_jax.errors import UserError
from aer_jax.proxies.parsing import label_table, parse

LABELS = ("angry", "happy", "Neutral state", "sad")
dressing = st.text(alphabet=" \n\t\"'`“”«».,;:!?()[]*_", max_size=4)


@given(st.sampled_from(LABELS), dressing, dressing, st.sampled_from([str.upper, str.lower, str.title, str]))
def test_a_dressed_label_is_that_label(label, before, after, case):
    assert parse(before + case(label) + after, LABELS) == label


@given(st.text())
def test_only_labels_are_parsed(response):
    label = parse(response, LABELS)
    letters = "".join(c for c in response.casefold() if c.isalnum())
    if label is None:
        assert response.strip().casefold() not in {known.casefold() for known in LABELS}
    else:
        assert letters == "".join(label.casefold().split())


@given(st.sampled_from(LABELS), st.text(alphabet="abehnotu-/0 ", min_size=1).filter(str.strip))
def test_anything_added_is_unparsed(label, more):
    assert parse(f"{more}{label}", LABELS) is None
    assert parse(f"{label}{more}", LABELS) is None


@given(st.lists(st.sampled_from(LABELS), min_size=2, max_size=4), st.sampled_from([" ", ", ", " or ", "/", "\n"]))
def test_several_labels_are_unparsed(labels, between):
    assert parse(between.join(labels), LABELS) is None


@pytest.mark.parametrize(
    "response",
    [
        "not angry",
        "unhappy",
        "not anger but sadness",
        "neutral",
        "sadness",
        "",
        "...",
        "-happy",
        "~sad",
        "hap py",
    ],
)
def test_unparsed(response):
    assert parse(response, LABELS) is None


def test_spaces_inside_a_label():
    assert parse("neutral \n State.", LABELS) == "Neutral state"


@pytest.mark.parametrize("labels", [("sad", "Sad"), ("sad", "sad."), ("sad", "!")])
def test_labels_that_cannot_be_told_apart(labels):
    with pytest.raises(UserError):
        label_table(labels)
