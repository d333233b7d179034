"""Few votes of many: what is dealt, what a proxy is found to be worth where that is known, and the command."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import small_corpus

from aer_jax import cli
from aer_jax.corpora import read_corpus
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.preparation.prepare import prepare
from aer_jax.errors import UserError
from aer_jax.evaluation.baselines import best_constant
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.evaluation.raters import thinning as module
from aer_jax.evaluation.raters.thinning import PRIOR, deal, estimates, thinning, worth
from aer_jax.experiments.raters import _worth, markdown
from aer_jax.labels.votes import Vote, Votes
from aer_jax.studies import toy_student, toy_truth

CLASSES = ("a", "b", "c")


def crowd(clips=240, speakers=12, raters=11, seed=0):
    """A dataset without audio whose truth is known."""
    rng = np.random.default_rng(seed)
    truth_nk = rng.dirichlet(np.full(3, 0.7), size=clips)
    ids = [f"{n:04d}" for n in range(clips)]
    votes = [Vote(id, CLASSES[k]) for id, p_k in zip(ids, truth_nk, strict=True) for k in rng.choice(3, raters, p=p_k)]
    utterances = {id: SimpleNamespace(speaker=f"s{n % speakers}") for n, id in enumerate(ids)}
    dataset = SimpleNamespace(name="crowd", path="crowd", classes=CLASSES, utterances=utterances, votes=Votes(votes))
    return dataset, truth_nk, rng


def test_votes_are_dealt_out_and_held_back():
    dataset, _, _ = crowd()
    more = [Vote("0000", "elsewhere"), Vote("0001", "a", weight=0.5)]
    dataset.votes = Votes(vote for vote in [*dataset.votes, *more] if vote.utterance != "0007")
    deals = deal(dataset, raters=5, held_back=4)
    assert deals.ids == [id for id in dataset.utterances if id != "0007"]
    d, m, n, k = deals.heard_dmnk.shape
    assert (d, m, n, k) == (module.DEALS, 5, 239, 3)
    assert (deals.heard_dmnk.sum(axis=-1) == np.arange(1, 6)[:, None]).all()
    held_back_dnk = deals.references_dnk * 6
    total_nk = deals.heard_dmnk[:, -1] + np.round(held_back_dnk)
    assert np.allclose(held_back_dnk, np.round(held_back_dnk)) and (total_nk == total_nk[0]).all()
    # Each deal is another, and none prefers a class: within 4 standard errors of the clips' own shares.
    assert np.abs(deals.heard_dmnk[:, 0].mean(axis=(0, 1)) - (total_nk[0] / 11).mean(axis=0)).max() < 4 * 0.5 / 239**0.5
    assert (deals.heard_dmnk[0] != deals.heard_dmnk[1]).any()


def test_js_is_what_metrics_say():
    dataset, truth_nk, _ = crowd(clips=40)
    deals = deal(dataset)
    found, _ = estimates(deals, {"truth": truth_nk})
    votes = [js_divergence(deals.references_dnk[d], deals.heard_dmnk[d, 2] / 3) for d in range(module.DEALS)]
    np.testing.assert_allclose(found["votes"][2], np.mean(votes, axis=0), atol=1e-12)
    assert found["truth"].shape == found[PRIOR].shape == (6, 40) and found["truth"].mean() < found[PRIOR].mean()


def test_what_proxies_are_worth(monkeypatch):
    """The truth is worth more than five raters, what hears nothing next to none, three listeners about three."""
    monkeypatch.setattr(module, "DEALS", 4)
    dataset, truth_nk, rng = crowd(clips=300)
    three_nk = np.array([rng.multinomial(3, p_k) for p_k in truth_nk]) / 3
    shuffled_nk = rng.permutation(truth_nk)
    arrays = {"truth": truth_nk, "three": three_nk, "shuffled": shuffled_nk}
    proxies = {name: dict(zip(dataset.utterances, probs_nk, strict=True)) for name, probs_nk in arrays.items()}
    result = thinning(dataset, proxies)
    everything = result["levels"]["all"]
    of = everything["worth"]
    for key, most in (("alone", 5), ("beside 1", 4)):
        assert of["truth"][key]["value"] == most and of["truth"][key]["at_least"]
        assert of["truth"][key]["ci"][1] is None
    assert of["shuffled"]["alone"]["value"] == 0 == of["shuffled"]["beside 2"]["value"]
    low, high = of["three"]["beside 1"]["ci"]
    assert low < 3 and (high is None or high > 3) and 2.3 < of["three"]["beside 1"]["value"] < 3.5
    js = everything["js"]
    assert js["votes"] == sorted(js["votes"], reverse=True) and js[PRIOR][1] < js["votes"][0], (
        "smoothing helps few votes"
    )
    assert sum(result["levels"][name]["n"] for name in ("low", "medium", "high")) == everything["n"] == 300


def test_a_constant_is_worth_nothing_anywhere(monkeypatch):
    """Whichever it is: the uniform one, a peak, the oracle's best, and each speaker's mean of the others' votes."""
    monkeypatch.setattr(module, "DEALS", 4)
    dataset, truth_nk, _ = crowd(clips=240)
    speaker_n = np.arange(240) % 12
    others_nk = np.array([truth_nk[speaker_n != s].mean(axis=0) for s in speaker_n])
    constants = {"uniform": np.full(3, 1 / 3), "peak": np.eye(3)[0], "best": best_constant(truth_nk)}
    proxies = {name: dict.fromkeys(dataset.utterances, p_k) for name, p_k in constants.items()}
    proxies["others"] = dict(zip(dataset.utterances, others_nk, strict=True))
    levels = thinning(dataset, proxies)["levels"]
    assert len(levels) == 4
    for level, part in levels.items():
        for name, row in part["worth"].items():
            for key, found in row.items():
                assert found["value"] == 0 and not found["at_least"], (level, name, key)
                assert found["ci"][0] == 0 and abs(found["gain"]) < (1e-12 if name != "others" else 2e-3)
    page = markdown({"dataset": "crowd", "raters": 5, "deals": 4, "levels": levels})
    result = {"dataset": "<b>", "raters": 5, "deals": 4, "levels": {"all": levels["all"]}}
    most = {"value": 5.0, "at_least": True, "ci": (4.0, None)}
    levels["all"]["worth"]["a|<i>"] = {key: most for key in levels["all"]["worth"]["uniform"]}
    assert "| a\\|&lt;i&gt; | ≥ 5 (4.0 to more) |" in re.sub(" +", " ", markdown(result)) and "<b>" not in markdown(
        result
    )
    assert "| uniform | 0.0 (0.0 to 0.0)" in re.sub(" +", " ", page) and "with the mean of uniform" in page


def test_worth_where_it_is_known():
    """Raters who lower each clip's JS by .1, .05, .03: a gain of .12 is worth 1.4 of them."""
    prior_mn = 0.5 - np.array([0, 0.1, 0.15, 0.18])[:, None] * np.ones(6)
    constant_mn = prior_mn + 0.01  # a constant that harms does not change what the proxy brings over it
    speakers_n = np.arange(6)
    found = worth(prior_mn, constant_mn, constant_mn - 0.12, speakers_n)
    assert found["alone"]["value"] == pytest.approx(1.4) and found["alone"]["ci"] == pytest.approx(
        (1.4, 1.4), abs=0.051
    )
    assert found["beside 1"]["value"] == 2 and found["beside 1"]["at_least"]
    flat_mn = np.full((4, 6), 0.5)  # raters who bring nothing: no number of them brings the gain
    assert worth(flat_mn, flat_mn, flat_mn, speakers_n)["alone"] == {
        "value": 0.0, "at_least": False, "ci": (0.0, None), "gain": 0.0, "gain_ci": (0.0, 0.0),
    }  # fmt: skip
    assert worth(flat_mn, flat_mn, flat_mn - 0.1, speakers_n)["alone"]["at_least"]


def test_bounds_are_printed_as_bounds():
    row = {"value": 5.0, "at_least": True, "ci": (4.1, None)}
    assert _worth(row, 9) == "≥ 5 (4.1 to more)"
    assert _worth(row | {"ci": None}, 2) == "≥ 5 (n/a, needs at least 3 speakers)"
    assert _worth({"value": 3.84, "at_least": False, "ci": (2.9, 4.4)}, 9) == "3.8 (2.9 to 4.4)"


def test_too_few_votes():
    with pytest.raises(UserError, match="0 clips of 0 speaker"):
        deal(crowd(clips=20, raters=8)[0])


def test_pooled_error_is_what_votes_have():
    """The closed form against 4,000 draws a clip, for votes of any weight: within 5 standard errors."""
    truth_nk = np.array(list(toy.truth(clips=5).values()))
    truth_nk /= truth_nk.sum(axis=1, keepdims=True)
    heard_nk = toy_truth.biased(truth_nk, 0.4)
    rng = np.random.default_rng(0)
    for human, synthetic, weight in ((1, 8, 1.0), (5, 8, 0.25), (3, 2, 2.0)):
        for p_k, q_k, expected in zip(
            truth_nk, heard_nk, toy_truth.squared_error(truth_nk, heard_nk, human, synthetic, weight), strict=True
        ):
            counts_rk = rng.multinomial(human, p_k, 4000) + weight * rng.multinomial(synthetic, q_k, 4000)
            errors_r = ((counts_rk / counts_rk.sum(axis=1, keepdims=True) - p_k) ** 2).sum(axis=1)
            assert abs(errors_r.mean() - expected) < 5 * errors_r.std() / 4000**0.5


def test_proxies_help_where_they_must_and_not_where_they_cannot(monkeypatch):
    monkeypatch.setattr(toy_truth, "CLIPS", 200)
    result = toy_truth.study()
    unbiased, biased = result["biases"]["0"], result["biases"]["0.6"]
    assert all(pooled < human for pooled, human in zip(unbiased["pooled"], unbiased["human"], strict=True))
    worse = [m for m, p, h in zip(result["human"], biased["pooled"], biased["human"], strict=True) if p > h]
    assert worse and 1 not in worse and 20 in worse, "one biased crowd helps one vote, and harms twenty"
    assert all(best <= human for best, human in zip(biased["pooled, best weight"], biased["human"], strict=True))


def test_a_learner_averages_chance_but_not_bias(monkeypatch):
    """Unbiased synthetic votes help it at any number of human ones; biased ones harm it, also beside a single vote."""
    monkeypatch.setattr(toy_student, "REPEATS", 3)
    js = {source: row["all"][0] for source, row in toy_student.study()["js"].items()}
    assert js["5 human"] < js["3 human"] < js["1 human"]
    for m in toy_student.HUMAN:
        assert js[f"{m} human + 8 synthetic, bias 0"] < js[f"{m} human"] < js[f"{m} human + 8 synthetic, bias 0.6"]


def test_the_command(tmp_path, capsys):
    manifest = small_corpus.write(tmp_path)
    dataset = prepare(read_corpus("manifest", manifest), tmp_path / "data")
    journal = small_corpus.write_journal(tmp_path, manifest)
    command = ["raters", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--raters", "1"]
    command += ["--journal", f"synthetic={journal}"]
    assert cli.main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    names = {"votes", PRIOR, "synthetic", "one vote of synthetic"}
    assert set(result["levels"]["all"]["js"]) == names and result["levels"]["all"]["n"] == len(dataset.utterances)
    assert "## all: 36 clips of 6 speakers, 4.0 votes held back" in (tmp_path / "out" / "raters.md").read_text()
    for figure in ("raters", "reliability", "ambiguity"):
        assert "<svg" in (tmp_path / "out" / f"{figure}.svg").read_text()
    (tmp_path / "wrong.jsonl").write_text('{"id": "x", "probs": {"a": 1}}\n')
    assert cli.main([*command, "--predictions", f"x={tmp_path / 'wrong.jsonl'}"]) == 2
    assert "wrong.jsonl, line 1, is not a prediction for" in capsys.readouterr().err
    (tmp_path / "wrong.jsonl").write_text(json.dumps({"id": "x", "probs": dict.fromkeys(dataset.classes, -0.5)}))
    assert cli.main([*command, "--predictions", f"x={tmp_path / 'wrong.jsonl'}"]) == 2
    assert "line 1, is not a prediction" in capsys.readouterr().err
