import dataclasses
import json

import numpy as np
import pytest

from aer_jax.config import LabelsConfig
from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data.preparation.prepare import prepare
from aer_jax.errors import UserError
from aer_jax.labels.journal import read_votes
from aer_jax.labels.votes import Vote
from aer_jax.training import targets as module
from aer_jax.training.targets import Targets

CLASSES = ("angry", "sad")
HUMAN = {"u0": ["angry"] * 3 + ["sad"], "u1": ["sad", "sad"], "u2": ["angry"]}
SYNTHETIC = {"u0": ["sad", "sad"], "u1": ["angry", "sad"], "u2": ["angry"]}
IDS = ["u1", "u0"]


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    clips = [
        Clip(id, f"s{id}", Waveform(rng.normal(0, 0.1, 4000), 8000), tuple(Vote(id, label) for label in labels))
        for id, labels in HUMAN.items()
    ]
    return prepare(Corpus("little", CLASSES, CLASSES, clips), tmp_path / "data")


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, SYNTHETIC)
    return path


def write(path, votes):
    with path.open("w") as file:
        for id, labels in votes.items():
            for listener, label in enumerate(labels):
                line = {"utterance": id, "listener": listener, "persona": "", "temperature": 1.0, "seed": 0}
                line |= {"prompt": "0", "model": "tiny", "response": label or "hm"}
                line |= {"label": label} if label else {"outcome": "unparsed"}
                file.write(json.dumps(line) + "\n")


def test_human(dataset):
    p_nk = Targets(dataset, LabelsConfig()).distributions(IDS)
    assert p_nk.dtype == np.float64 and p_nk.tolist() == [[0, 1], [0.75, 0.25]]


def test_synthetic(dataset, journal):
    # One synthetic vote weighs as much as another, so the weight changes nothing here.
    labels = LabelsConfig("synthetic", str(journal), synthetic_weight=0.1)
    assert Targets(dataset, labels).distributions(IDS).tolist() == [[0.5, 0.5], [0, 1]]


@pytest.mark.parametrize(("weight", "u0"), [(1.0, [3 / 6, 3 / 6]), (0.5, [3 / 5, 2 / 5]), (0.0, [3 / 4, 1 / 4])])
def test_combined_pools_votes_by_weight(dataset, journal, weight, u0):
    labels = LabelsConfig("combined", str(journal), weight)
    np.testing.assert_allclose(Targets(dataset, labels).distributions(["u0"]), [u0], atol=1e-12)


def lacking(dataset, journal):
    """u1's answer is unreadable, u2 was not asked about; u3 is of another dataset."""
    write(journal, {"u0": ["sad"], "u1": [None], "u3": ["sad"]})
    return dataclasses.replace(dataset, splits={"train": ["u0", "u1"], "validation": ["u2"], "test": []})


@pytest.mark.parametrize(("source", "missing"), [("synthetic", "human"), ("synthetic", "drop"), ("combined", "drop")])
def test_clips_without_a_vote_to_learn_from_are_refused(dataset, journal, source, missing):
    write(journal, {"u0": ["sad"], "u1": [None]})  # u1 answered beside the point, u2 not asked
    labels = LabelsConfig(source, str(journal), missing=missing)
    with pytest.raises(
        UserError,
        match=r"2 of 3 utterances have no synthetic vote .*first u1\); run `aer-jax annotate`.*labels.missing=drop",
    ):
        Targets(dataset, labels).distributions(["u0", "u1", "u2"])
    for weight in (1.0, 0.5):
        both = LabelsConfig("combined", str(journal), weight)
        total = 4 + weight
        expected = [[3 / total, (1 + weight) / total], [0, 1], [1, 0]]
        np.testing.assert_allclose(Targets(dataset, both).distributions(["u0", "u1", "u2"]), expected)
    np.testing.assert_allclose(
        Targets(dataset, dataclasses.replace(both, prior_votes=1.0)).weights(["u0", "u1"]), [4.5 / 5.5, 2 / 3]
    )


def test_clips_without_a_synthetic_vote_are_counted(dataset, journal):
    dataset = lacking(dataset, journal)
    assert Targets(dataset, LabelsConfig()).settle_missing() == (dataset, {})
    labels = LabelsConfig("combined", str(journal))
    whole, facts = Targets(dataset, labels).settle_missing()
    assert whole is dataset
    assert facts == {
        "treatment": "human", "clips": {"train": 1, "validation": 1}, "of": {"train": 2, "validation": 1},
        "sentence": f"without a synthetic vote in {journal}: 1 of 2 train clips and 1 of 1 validation clips; learned "
        "from their human votes alone (labels.missing=human)",
    }  # fmt: skip
    assert Targets(dataset, LabelsConfig("synthetic", str(journal))).settle_missing() == (dataset, {})


@pytest.mark.parametrize("source", ["synthetic", "combined"])
def test_clips_without_a_synthetic_vote_are_left_out_on_request(dataset, journal, source):
    dataset = lacking(dataset, journal)
    labels = LabelsConfig(source, str(journal), missing="drop")
    with pytest.raises(UserError, match="none of the 1 validation clips has a synthetic vote"):
        Targets(dataset, labels).settle_missing()
    dataset = dataclasses.replace(dataset, splits={"train": ["u1", "u0"], "validation": ["u0"], "test": ["u2"]})
    kept, facts = Targets(dataset, labels).settle_missing()
    assert kept.splits == {"train": ["u0"], "validation": ["u0"], "test": ["u2"]}
    assert facts["clips"] == {"train": 1, "validation": 0} and facts["sentence"].endswith(
        "1 of 2 train clips; left out (labels.missing=drop)"
    )
    assert Targets(kept, labels).distributions(kept.splits["train"]).shape == (1, 2)


def test_a_journal_about_other_clips_is_refused(dataset, journal):
    dataset = dataclasses.replace(dataset, splits={"train": ["u0", "u1"], "validation": ["u2"], "test": []})
    write(journal, {"v0": ["sad"], "v1": ["angry"]})
    with pytest.raises(UserError, match=r"none of the 2 train clips has .* about other clips, the first is v0"):
        Targets(dataset, LabelsConfig("combined", str(journal))).settle_missing()
    write(journal, {"u0": [None]})
    with pytest.raises(
        UserError, match=r"none of the 2 train clips has a synthetic vote in \S+; run `aer-jax annotate`"
    ):
        Targets(dataset, LabelsConfig("combined", str(journal))).settle_missing()


def test_a_weight_is_learned_from_the_clips_that_have_votes_of_both(tmp_path):
    dataset, heard, shares, rng = many(tmp_path)
    said = {id: [CLASSES[int(rng.random() > p)]] for id, p in zip(heard, shares, strict=True)}
    some = dataset.splits["validation"][::2]
    weights = {}
    for name, votes in (("half", said | {id: [None] for id in some}), ("whole", said)):
        write(tmp_path / name, votes)
        data = dataset
        if name == "whole":
            rest = [id for id in dataset.splits["validation"] if id not in some]
            data = dataclasses.replace(dataset, splits={**dataset.splits, "validation": rest})
        weights[name] = Targets(data, LabelsConfig("combined", str(tmp_path / name), "learned")).synthetic_weight
    assert weights["half"] == pytest.approx(weights["whole"])


def test_a_journal_is_read_once(dataset, journal, monkeypatch):
    reads = []
    monkeypatch.setattr(module, "read_votes", lambda *args: reads.append(args) or read_votes(*args))
    of_all = Targets(dataset, LabelsConfig("combined", str(journal), prior_votes=1.0))
    of_all.settle_missing(), of_all.distributions(IDS), of_all.weights(IDS)
    assert len(reads) == 1


def test_unknown_utterances_have_no_human_vote(dataset):
    with pytest.raises(UserError, match=r"1 of 2 utterances have no human vote .*first u9"):
        Targets(dataset, LabelsConfig()).distributions(["u0", "u9"])


def test_many_votes_count_more_than_few(dataset, journal):
    """u1 has 2 human and 2 synthetic votes, u0 4 and 2."""
    alike = Targets(dataset, LabelsConfig()).weights(IDS)
    np.testing.assert_array_equal(alike, [1, 1])
    np.testing.assert_allclose(Targets(dataset, LabelsConfig(prior_votes=2)).weights(IDS), [2 / 4, 4 / 6])
    pooled = LabelsConfig("combined", str(journal), synthetic_weight=0.5, prior_votes=3)
    np.testing.assert_allclose(Targets(dataset, pooled).weights(IDS), [3 / 6, 5 / 8])
    for prior in (-1.0, float("nan")):
        with pytest.raises(UserError, match=r"labels.prior_votes is .*; it must be 0 or more"):
            Targets(dataset, LabelsConfig(prior_votes=prior)).weights(IDS)


def test_wrong_settings_are_said(dataset, journal, tmp_path):
    with pytest.raises(UserError, match=r"labels.journal must name"):
        Targets(dataset, LabelsConfig("synthetic")).distributions(IDS)
    with pytest.raises(UserError, match="there is no journal"):
        Targets(dataset, LabelsConfig("synthetic", str(tmp_path / "none.jsonl"))).distributions(IDS)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"labels.synthetic_weight is"):
            Targets(dataset, LabelsConfig("combined", str(journal), weight)).distributions(IDS)


def many(tmp_path):
    """60 clips of 10 speakers with 4 votes each, their shares of "angry", and what to draw more with."""
    rng = np.random.default_rng(0)
    shares = rng.random(60)
    heard = {f"u{n}": [CLASSES[int(rng.random() > p)] for _ in range(4)] for n, p in enumerate(shares)}
    clips = [
        Clip(id, f"s{n % 10}", Waveform(rng.normal(0, 0.1, 4000), 8000), tuple(Vote(id, label) for label in labels))
        for n, (id, labels) in enumerate(heard.items())
    ]
    dataset = prepare(Corpus("many", CLASSES, CLASSES, clips), tmp_path / "data")
    return dataset, heard, shares, rng


def test_a_weight_is_learned_from_the_validation_speakers(tmp_path):
    """One synthetic listener that hears what people hear, one that always says sad: the first is worth more."""
    dataset, heard, shares, rng = many(tmp_path)
    weights = {}
    for name, answer in (("good", lambda p: CLASSES[int(rng.random() > p)]), ("sad", lambda p: "sad")):
        write(tmp_path / name, {id: [answer(p)] for id, p in zip(heard, shares, strict=True)})
        labels = LabelsConfig("combined", str(tmp_path / name), "learned")
        weights[name] = Targets(dataset, labels).synthetic_weight
        fixed = LabelsConfig("combined", str(tmp_path / name), weights[name])
        p_nk = Targets(dataset, labels).distributions(list(heard))
        np.testing.assert_array_equal(p_nk, Targets(dataset, fixed).distributions(list(heard)))
    assert weights["good"] > weights["sad"] >= 0


def test_no_weight_can_be_learned_from_single_votes(dataset, journal):
    dataset = dataclasses.replace(dataset, splits={"train": ["u0"], "validation": ["u2"], "test": ["u1"]})
    with pytest.raises(UserError, match=r"learned from validation utterances .* has none; set a number"):
        Targets(dataset, LabelsConfig("combined", str(journal), "learned")).distributions(["u0"])
