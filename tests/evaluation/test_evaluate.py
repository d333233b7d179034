import json
import random
from types import SimpleNamespace

import numpy as np
import pytest

from aer_jax.errors import UserError
from aer_jax.evaluation.evaluate import evaluate, write_evaluation
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.labels.votes import Vote, Votes

CLASSES = ("anger", "joy", "neutral")


def dataset(speakers=6, clips=8, seed=0):
    """A stand-in with what evaluation reads of a Dataset: half of the speakers are for training."""
    rng = np.random.default_rng(seed)
    utterances, votes, splits = {}, [], {"train": [], "validation": [], "test": []}
    for s in range(speakers):
        for c in range(clips):
            id = f"s{s}-{c}"
            utterances[id] = SimpleNamespace(id=id, speaker=f"s{s}", transcript="words", seconds=1.0)
            splits["train" if s % 2 else "test"].append(id)
            p = rng.dirichlet(np.full(3, 0.5))
            votes += [Vote(id, CLASSES[k]) for k in rng.choice(3, size=5, p=p)]
    votes += [Vote("s0-0", "anger", source="a model")] * 9  # synthetic votes are no reference
    return SimpleNamespace(
        path="toy-data",
        name="toy",
        classes=CLASSES,
        licensed=False,
        utterances=utterances,
        votes=Votes(votes),
        splits=splits,
        speakers_apart=True,
    )


def predictions(data, seed=1):
    rng = np.random.default_rng(seed)
    return {id: tuple(rng.dirichlet(np.ones(3))) for id in data.splits["test"]}


def test_the_numbers_and_what_they_are_about():
    data = dataset()
    given = predictions(data)
    metrics = evaluate(given, data, split="test")
    human = [(vote.utterance, vote.label) for vote in data.votes if vote.source == "human"]
    votes = [[human.count((id, label)) for label in CLASSES] for id in given]
    references_nk = np.array(votes) / 5
    expected = js_divergence(references_nk, np.array(list(given.values()))).mean()
    assert metrics["js"] == pytest.approx(expected, abs=1e-12)
    assert (metrics["n"], metrics["n_speakers"], metrics["split"], metrics["references"]) == (
        24,
        3,
        "test",
        "human",
    )
    low, high = metrics["ci"]["js"]
    assert low < metrics["js"] < high and metrics["ci"]["over"] == "speakers"
    for key in ("js_distance", "bc", "r2", "ece", "ece_soft", "accuracy", "accuracy_argmax", "uar", "macro_f1"):
        assert isinstance(metrics[key], float)


def test_baselines():
    data = dataset()
    rows = evaluate(predictions(data), data, split="test")["baselines"]
    assert list(rows) == ["uniform", "train_mean", "best_constant", "oracle_majority", "split_half"]
    assert rows["best_constant"]["js"] <= min(rows["uniform"]["js"], rows["train_mean"]["js"])
    assert rows["uniform"]["accuracy"] is None and rows["uniform"]["ece"] is None
    assert rows["oracle_majority"]["accuracy"] == 1
    assert rows["split_half"]["n"] == 24 and rows["split_half"]["accuracy"] is None
    train = [v for v in data.votes if v.utterance in data.splits["train"]]
    share = sum(v.label == "anger" for v in train) / len(train)
    assert rows["train_mean"]["distribution"]["anger"] == pytest.approx(share)  # each clip has five votes
    for row in rows.values():
        low, high = row["ci"]["js"]
        assert low <= row["js"] <= high and row["note"]


def test_ambiguity_bins_add_up_and_an_empty_one_is_null():
    data = dataset()
    votes = [Vote(id, "joy") for id in data.utterances for _ in range(3)]
    first = data.splits["test"][0]
    data.votes = Votes(votes + [Vote(first, label) for label in ("anger", "anger", "neutral", "neutral")])
    metrics = evaluate(predictions(data), data, split="test")
    bins = metrics["by_ambiguity"]
    assert [bins[name]["n"] for name in ("low", "medium", "high")] == [23, 0, 1]
    assert bins["medium"]["js"] is None and bins["medium"]["ci"]["js"] is None
    assert bins["high"]["ci"]["js"] is None and "at least 3 speakers; there is 1" in bins["high"]["ci"]["reason"]
    parts = sum(b["n"] * b["js"] for b in bins.values() if b["n"])
    assert parts / 24 == pytest.approx(metrics["js"])
    assert bins["low"]["baselines"]["split_half"]["js"] == 0
    assert metrics["by_class"]["anger"]["recall"] is None or metrics["by_class"]["anger"]["support"] > 0


def test_distributions_without_whole_votes_cannot_be_split():
    data = dataset()
    shares = dict(zip(CLASSES, (0.5, 0.3, 0.2), strict=True))
    data.votes = Votes([Vote(id, c, weight=w) for id in data.utterances for c, w in shares.items()])
    metrics = evaluate(predictions(data), data, split="test")
    half = metrics["baselines"]["split_half"]
    assert half["js"] is None and half["n"] == 0 and "whole votes" in half["reason"]
    assert metrics["r2"] is None  # constant references


def test_one_speaker_has_no_interval():
    data = dataset()
    data.splits["test"] = data.splits["test"][:8]
    ci = evaluate(predictions(data), data, split="test")["ci"]
    assert ci["js"] is None and "at least 3 speakers; there is 1" in ci["reason"]


def test_files_are_the_same_for_any_order(tmp_path):
    data = dataset()
    given = predictions(data)
    write_evaluation(tmp_path / "a", given, evaluate(given, data, split="test"), data)
    given = dict(reversed(given.items()))
    data.votes = Votes(random.Random(1).sample(list(data.votes), len(data.votes)))
    random.Random(2).shuffle(data.splits["train"])
    write_evaluation(tmp_path / "b", given, evaluate(given, data, split="test"), data)
    for name in ("metrics.json", "predictions.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["metrics.json", "predictions.jsonl"]


def test_files_hold_what_was_scored(tmp_path):
    data = dataset()
    given = predictions(data)
    metrics = evaluate(given, data, split="test")
    write_evaluation(tmp_path, given, metrics, data)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse) == metrics
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == sorted(data.splits["test"])
    js_n = [
        js_divergence(*(np.array([line[key][c] for c in CLASSES]) for key in ("probs", "reference"))) for line in lines
    ]
    assert np.mean(js_n) == pytest.approx(metrics["js"])
    assert all(0 <= line["ambiguity"] <= 1 for line in lines)


@pytest.mark.parametrize(
    ("id", "probs", "sentence"),
    [
        ("s0-0", None, 'have no prediction, the first is "s0-0"'),
        ("who", (0.5, 0.5, 0.0), '"who" is not of the test split'),
        ("s1-0", (0.5, 0.5, 0.0), '"s1-0" is not of the test split'),
        ("s0-0", (np.nan, 0.5, 0.5), "is not a distribution"),
        ("s0-0", (0.5, 0.3, 0.1), "is not a distribution"),
        ("s0-0", (-0.1, 0.6, 0.5), "is not a distribution"),
        ("s0-0", (0.5, 0.5), "has 2 numbers; toy-data has 3 classes"),
    ],
)
def test_bad_predictions_are_refused(id, probs, sentence):
    data = dataset()
    given = {key: value for key, value in (predictions(data) | {id: probs}).items() if value is not None}
    with pytest.raises(UserError, match=sentence):
        evaluate(given, data, split="test")


def test_bad_data_are_refused():
    data = dataset()
    given = predictions(data)
    with pytest.raises(UserError, match='no split "tset"'):
        evaluate(given, data, split="tset")
    with pytest.raises(UserError, match="validation split of toy-data is empty"):
        evaluate(given, data, split="validation")
    data.votes = Votes([vote for vote in data.votes if vote.utterance != "s0-3"])
    with pytest.raises(UserError, match='no human vote for its classes, the first is "s0-3"'):
        evaluate(given, data, split="test")
