"""The plan of an annotation: sums that can be done by hand, and what must grow with what."""

import pytest
from transformers import Qwen2AudioConfig

from aer_jax.errors import UserError
from aer_jax.scale.annotation import annotation, text
from aer_jax.scale.chips import parse_slice
from aer_jax.scale.random_checkpoint import published_config


@pytest.fixture(scope="module")
def base():
    return Qwen2AudioConfig.from_dict(published_config())


def test_exact_by_hand(base):
    """32 layers of 4 x 4096^2 + 3 x 4096 x 11008 weights, 2 operations each, for 5 prompts of 60 + 125 + 20 tokens."""
    plan = annotation(base, parse_slice("h100:1"), 100_000, 10)
    assert plan["tokens"] == 60 + 125
    language = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    tower = 32 * (4 * 1280**2 + 2 * 1280 * 5120)
    operations = 2 * (5 * 205 * language + 251 * tower + 125 * 1280 * 4096)
    assert plan["ways"]["exact"]["compute_s"] == pytest.approx(operations / (0.6 * 989e12), rel=1e-3)
    way = plan["ways"]["exact"]
    assert way["hours"] == pytest.approx(100_000 / way["clips_per_s"] / 3600)


def test_what_grows_with_what(base):
    def hours(chips, listeners=10, **lengths):
        ways = annotation(base, parse_slice(chips), 100_000, listeners, **lengths)["ways"]
        return {name: way["hours"] for name, way in ways.items()}

    one, eight, more = hours("h100:1"), hours("h100:8"), hours("h100:1", 20)
    assert eight == pytest.approx({name: value / 8 for name, value in one.items()})
    assert more["exact"] == one["exact"] and 1.5 < more["transformers"] / one["transformers"] < 2
    assert one["exact"] < one["transformers"] < one["server"]
    assert hours("h100:1", seconds=20.0)["exact"] > 2 * one["exact"]
    with pytest.raises(UserError, match="do not fit one v5e"):
        hours("v5e:1x1")


def test_words(base):
    said = text(annotation(base, parse_slice("h100:8"), 100_000, 10))
    assert "100,000 utterances" in said and "estimate" in said and said.count("\n") == 4
