import datetime

import pytest

from aer_jax.corpora.tables.times import past_the_end, read_seconds
from aer_jax.errors import UserError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1.5", 1.5), ("0", 0), (".25", 0.25), ("1e-1", 0.1), ("1.5s", 1.5), ("2 sec", 2), ("1500 ms", 1.5), (3, 3),
        (2.25, 2.25),
        ("00:01:30.500", 90.5), ("01:30.5", 90.5), ("75:00", 4500), ("1:00:00", 3600), ("00:16:16,059", 976.059),
        ("0 days 00:00:01.500000", 1.5), ("0 days 00:00:01", 1), ("1 days 00:00:00", 86_400), 
        ("1 day, 0:00:01", 86_401), (datetime.timedelta(seconds=1.25), 1.25),
    ],
)  # fmt: skip
def test_times(value, seconds):
    assert read_seconds(value, "start", "line 2") == pytest.approx(seconds, abs=1e-12)


def test_milliseconds():
    assert read_seconds("1500", "start_ms", "x", milliseconds=True) == 1.5
    assert read_seconds(1500, "start_ms", "x", milliseconds=True) == 1.5
    assert read_seconds("1.5 s", "start_ms", "x", milliseconds=True) == 1.5  # the unit beside the number counts
    assert read_seconds("00:00:01.5", "start_ms", "x", milliseconds=True) == 1.5


TEXTS = (
    "nan",
    "inf",
    "later",
    "1:2:3:4",
    "00:61:00",
    "00:00:60",
    "1,500",
    "2021-01-01",
    "2021-01-01 10:00:00",
    "1.5 min",
)
VALUES = ("", True, [1], float("inf"), float("nan"), 10**400, datetime.datetime(2021, 1, 1), "9" * 5000)


@pytest.mark.parametrize("value", [*TEXTS, *VALUES])
def test_what_is_no_time(value):
    with pytest.raises(UserError, match=r'line 2: "start" is .*, not a time in seconds'):
        read_seconds(value, "start", "line 2")


@pytest.mark.parametrize("value", ["-1", -0.1, "-1 days +23:59:59", datetime.timedelta(seconds=-1)])
def test_negative_times(value):
    with pytest.raises(UserError, match=r"line 2: .*(from the start of the recording|not a time)"):
        read_seconds(value, "start", "line 2")


def test_past_the_end():
    assert (
        past_the_end(None, None, 1.0, "x")
        == past_the_end(0.5, 1.0, 1.0, "x")
        == past_the_end(0.5, 1.04, 1.0, "x")
        == ""
    )
    assert past_the_end(0.5, None, 1.0, "x") == past_the_end(None, 0.5, 1.0, "x") == ""
    assert "reaches 1.1 s, but the recording lasts 1.000 s" in past_the_end(0.5, 1.1, 1.0, "line 2")
    assert past_the_end(1.0, None, 1.0, "x") and past_the_end(1.0, 1.04, 1.0, "x")
    assert "are the times milliseconds?" in past_the_end(500, 900, 1.0, "x")
    assert "milliseconds" not in past_the_end(500, 9000, 1.0, "x")
