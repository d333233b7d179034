import pytest

from aer_jax.corpora.label_names import LabelNames
from aer_jax.corpora.manifest.votes import read_distribution, read_votes
from aer_jax.errors import UserError


def labels(votes):
    return [vote.label for vote in read_votes("a", votes, LabelNames(), "line 2")]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("happy;sad", "happy sad"),
        ("happy,happy,sad", "happy happy sad"),
        ("happy, sad", "happy sad"),
        ("happy|sad", "happy sad"),
        ("happy\nsad", "happy sad"),
        ("happy;sad;", "happy sad"),
        ("happy;;nan;-;sad", "happy sad"),
        ("happy", "happy"),
        ("very happy;sad", "very happy|sad"),
        ("angry:2;sad:1", "angry angry sad"),
        ("angry:2,sad:1", "angry angry sad"),
        ("angry: 2, sad: 1", "angry angry sad"),
        ("angry:2|sad:1", "angry angry sad"),
        ("angry:2.0;sad:0", "angry angry"),
        ("angry:2;nan:1", "angry angry"),
        ("['happy', 'sad']", "happy sad"),
        ('["happy","sad"]', "happy sad"),
        ("('happy', 'sad')", "happy sad"),
        ("[happy, sad]", "happy sad"),
        ("['happy', nan, None]", "happy"),
        ("[]", ""),
        ("{'angry': 2, 'sad': 1}", "angry angry sad"),
        ('{"angry": 2}', "angry angry"),
        ('[{"rater": "r1", "label": "angry"}]', "angry"),
        ("nan", ""),
        ("N/A", ""),
        (["happy", None, float("nan"), "nan", ""], "happy"),
        ([{"rater": None, "label": "happy"}, {"rater": "r", "label": None}], "happy"),
        ({"angry": 1, "sad": None, "N/A": 3}, "angry"),
        ({"angry": 2.0}, "angry angry"),
    ],
)
def test_votes(cell, expected):
    assert labels(cell) == (expected.split("|") if "|" in expected else expected.split())


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("happy/sad", r"'/'; separate votes by semicolons \(happy;sad\)"),
        ("happy;sad,neutral", "\"sad,neutral\" is no label because of its ','"),
        ("happy;sad|neutral", "mixes separators"),
        ("['happy' 'sad']", "which cannot be read; write happy;sad"),  # of numpy
        ("['happy', ['sad']]", r"\['sad'\] is no label|cannot be read"),
        ("['happy'", "cannot be read"),
        ("{'happy', 'sad'}", "a set without numbers; write happy;sad or"),
        ("{'a': 1, 'a': 2}", 'names "a" twice'),
        ("[" * 100_000, "cannot be read"),
        ("array(['happy', 'sad'])", "as Python prints it; write happy;sad or"),
        ("1;0;2", 'the label "1" is a number; give --labels'),
        ("1,0,2", "is no label because of its '1,0'"),
        (["happy,sad"], "is no label because of its ','"),
        (["['happy']"], "is no label"),
        ([["happy"]], r"\['happy'\] is no label"),
        ({"angry": float("nan")}, "count of .* is nan"),
        ({"angry": float("inf")}, "count of .* is inf"),
        ({"angry": -1}, "count of .* is -1"),
        (3, "3 is no label"),
        (True, "votes must be a list"),
    ],
)
def test_votes_that_are_refused(cell, message):
    with pytest.raises(UserError, match=message) as error:
        labels(cell)
    assert "line 2" in str(error.value) and len(str(error.value)) < 400


def shares(value):
    return {vote.label: vote.weight for vote in read_distribution("a", value, LabelNames(), "line 2")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("angry:0.7;sad:0.3", (0.7, 0.3)),
        ("angry:0,7;sad:0,3", (0.7, 0.3)),
        ("angry:0,7,sad:0,3", (0.7, 0.3)),
        ("angry:.7,sad:.3", (0.7, 0.3)),
        ("angry:70%;sad:30%", (0.7, 0.3)),
        ("{'angry': 0.7, 'sad': 0.3}", (0.7, 0.3)),
        ({"angry": 0.7, "sad": 0.3, "calm": None}, (0.7, 0.3)),
        ("angry:0.67;sad:0.33;calm:0.00", (0.67, 0.33)),
        ("a:0.3;b:0.3;c:0.3", (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_shares(value, expected):
    assert tuple(shares(value).values()) == pytest.approx(expected)


def test_what_rounding_explains():
    """Each share may be off by half a unit of its last place."""
    for k in (3, 6, 7, 9, 11, 12, 13):
        for places in (2, 3):
            text = f"{1 / k:.{places}f}"
            assert tuple(shares(";".join(f"c{i}:{text}" for i in range(k))).values()) == pytest.approx([1 / k] * k)
            assert len(shares({f"c{i}": float(text) for i in range(k)})) == k
    assert shares("a:0.13;b:0.13;c:0.38;d:0.38")  # eighths, all rounded up
    for wrong in (
        "a:0.33;b:0.33;c:0.30",
        "a:0.333;b:0.333;c:0.31",
        "a:1;b:1",
        "a:0.5;b:0.1",
        "a:0.5;b:0.4",
        {"a": 0.5, "b": 0.48},
    ):
        with pytest.raises(UserError, match="sums to"):
            shares(wrong)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("angry:70;sad:30", "is 70, not from 0 to 1; divide percent by 100"),
        ({"angry": 66.7, "sad": 33.3}, "divide percent by 100"),
        ("angry:3;sad:1", "is 3, not from 0 to 1; counts belong in votes"),
        ("angry:-0.5;sad:1.5", "is -0.5"),
        ("angry;sad", "names no shares"),
        ("angry:x", '"x" in distribution is not a number'),
        ("angry:1e999", "is inf"),
        ({}, "sums to 0"),
        ({"angry": "0.7"}, "is '0.7'"),
        ({"angry": True}, "is True"),
        (0.5, "distribution must be"),
    ],
)
def test_shares_that_are_refused(value, message):
    with pytest.raises(UserError, match=message):
        shares(value)


def test_a_distribution_that_is_not_available():
    assert shares("nan") == shares("-") == shares({"angry": None, "sad": None}) == {}


@pytest.mark.parametrize(
    "cell", ["{'happy', 'sad'}", "{happy}", "Counter({'happy': 2})", "collections.Counter()", "set()"]
)
def test_what_python_prints_is_no_label(cell):
    with pytest.raises(UserError, match=r"line 2: votes is .*; write happy;sad or angry:2;sad:1\."):
        labels(cell)
    with pytest.raises(UserError, match=r"; write angry:0\.7;neutral:0\.3\."):
        read_distribution("a", cell, LabelNames(), "line 2")
