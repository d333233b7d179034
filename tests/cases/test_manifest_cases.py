"""Tables as spreadsheets, pandas and dialogue corpora write them, beside the checkout; each says what is right."""

from pathlib import Path

import pytest

from aer_jax.corpora.manifest import reader as manifest
from aer_jax.data.preparation.prepare import prepare

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "manifests"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no cases beside the checkout")

TWO = {"a1": ["happy", "happy", "neutral"], "a2": ["angry", "angry", "angry", "neutral"]}


def read(name, **choices):
    return manifest.read(CASES / name, **choices)


def votes(corpus):
    return {clip.id: [vote.label for vote in clip.votes] for clip in corpus.clips}


@pytest.mark.parametrize("name", ["excel_semicolon.csv", "tabs.tsv"])
def test_delimiters(name):
    assert votes(read(name)) == TWO


def test_separators():
    corpus = read("comma_votes.csv")
    assert votes(corpus) == TWO | {"a2": ["angry", "neutral"], "a3": ["sad", "neutral"], "a4": []}
    assert corpus.classes == ("angry", "happy", "neutral", "sad")


def test_columns_of_counts():
    corpus = read("rating_columns.csv", map="counts=Angry+Happy+Neutral+Sad")
    first, second = corpus.clips
    assert [vote.label for vote in first.votes] == ["Happy", "Happy", "Neutral"] and first.speaker == "anna"
    assert [vote.label for vote in second.votes] == ["Angry"] * 3 + ["Neutral"] and second.transcript == "Leave it."


def test_columns_of_raters(tmp_path):
    (tmp_path / "synonyms.csv").write_text("anger,angry\n")
    corpus = read("rater_columns.csv", labels=tmp_path / "synonyms.csv")
    assert votes(corpus) == {"a1": ["happy", "happy", "neutral"], "a2": ["angry", "angry"]}


def test_a_line_per_vote():
    corpus = read("long_format.csv")
    assert votes(corpus) == {"a1": ["happy", "neutral"], "a2": ["angry", "angry"]}
    assert [vote.rater for clip in corpus.clips for vote in clip.votes] == ["r1", "r2", "r1", "r3"]


def test_rounded_shares():
    corpus = read("rounded_shares.csv")
    assert [sum(vote.weight for vote in clip.votes) for clip in corpus.clips] == pytest.approx([1, 1])
    assert any("number of raters behind them is unknown" in note for note in corpus.notes)


def test_line_separator():
    (clip,) = read("line_separator.jsonl").clips
    assert clip.transcript == "one\u2028two"


def test_segments(tmp_path):
    dataset = prepare(read("segments.csv"), tmp_path / "data")
    assert {id: u.seconds for id, u in dataset.utterances.items()} == pytest.approx(
        {"s1": 0.9, "s2": 0.9, "s3": 0.8, "s4": 0.9}
    )
