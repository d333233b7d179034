"""Alignment: the p-value is valid, finds real agreement, and the figures are scipy's."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import kstest

from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote
from aer_jax.proxies.alignment import alignment, shuffled_agreement_p
from aer_jax.proxies.journal import Attempt, Journal

CLASSES = ("angry", "happy", "neutral", "sad")


def votes(counts_nk, source):
    return [
        Vote(f"u{n}", CLASSES[k], source=source)
        for n, row in enumerate(counts_nk)
        for k, count in enumerate(row)
        for _ in range(count)
    ]


def test_agreement_is_found_and_its_js_is_scipys():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(4, 0.5), size=40)
    human, synthetic = rng.multinomial(5, truth), rng.multinomial(8, truth)
    found = shuffled_agreement_p(votes(human, "human"), votes(synthetic, "m"), CLASSES)
    expected = np.mean(jensenshannon(human / 5, synthetic / 8, base=2, axis=1) ** 2)
    assert found.js == pytest.approx(expected, abs=1e-12)
    assert found.p == 0.001 and found.js < found.js_shuffled
    assert found == shuffled_agreement_p(votes(human, "human"), votes(synthetic, "m"), CLASSES)


def test_p_is_uniform_where_votes_have_nothing_to_do_with_the_utterance():
    """A biased annotator agrees with nobody in particular: over 100 repetitions p is uniform (KS test)."""
    rng = np.random.default_rng(1)
    ps = []
    for seed in range(100):
        human = rng.multinomial(5, [0.1, 0.2, 0.5, 0.2], size=15)
        synthetic = rng.multinomial(5, [0.1, 0.2, 0.5, 0.2], size=15)
        ps.append(shuffled_agreement_p(votes(human, "human"), votes(synthetic, "m"), CLASSES, 99, seed).p)
    assert kstest(ps, "uniform").pvalue > 0.01


def test_a_constant_annotator_has_p_one():
    human = np.eye(4, dtype=int)[[0, 1, 2, 2, 3, 2]]
    constant = np.tile([0, 0, 3, 0], (6, 1))
    assert shuffled_agreement_p(votes(human, "human"), votes(constant, "m"), CLASSES).p == 1.0


def write(path, dataset, answers):
    """A journal in which listener l says answers[n][l] about clip n; None is unparsed, "!" failed."""
    with Journal(path, "m", "p") as journal:
        for id, row in zip(dataset.utterances, answers, strict=False):
            for listener, label in enumerate(row):
                outcome = {None: "unparsed", "!": "failed"}.get(label)
                journal.append([
                    Attempt(id, listener, f"persona {listener}", 0.5, 1, "p", "m", label or "hm",
                            None if outcome else label, outcome, "broken" if outcome == "failed" else None)
                ])  # fmt: skip


def test_alignment_report(dataset, tmp_path):
    answers = [["sad", "sad", None]] * 3 + [["neutral", "!", None], ["happy", "neutral", "!"], [None] * 3]
    write(tmp_path / "j", dataset, answers)
    found = alignment(dataset, tmp_path / "j")
    assert (found["asked"], found["utterances"], found["listeners"]) == (18, 5, 3)
    assert found["unparsed_share"] == 7 / 18 and found["failed_share"] == 2 / 18
    human = {id: [v.label for v in dataset.votes if v.utterance == id] for id in dataset.utterances}
    pairs = [
        ([human[id].count(c) / 5 for c in CLASSES], [row.count(c) / sum(a in CLASSES for a in row) for c in CLASSES])
        for id, row in zip(dataset.utterances, answers[:5], strict=False)
    ]
    p, q = (np.array(side) for side in zip(*pairs, strict=True))
    assert found["js"] == pytest.approx(np.mean(jensenshannon(p, q, base=2, axis=1) ** 2), abs=1e-12)
    assert found["bc"] == pytest.approx(np.sqrt(p * q).sum(axis=1).mean(), abs=1e-12)
    uniform = np.mean(jensenshannon(p, np.full_like(p, 0.25), base=2, axis=1) ** 2)
    assert found["baselines"]["uniform"]["js"] == pytest.approx(uniform, abs=1e-12)
    assert found["baselines"]["best_constant"]["js"] <= uniform
    assert found["by_listener"][0]["labels"] == {"sad": 3, "neutral": 1, "happy": 1}
    assert found["by_listener"][2]["unparsed_share"] == 5 / 6


def test_alignment_refuses(dataset, tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="is empty"):
        alignment(dataset, tmp_path / "empty")
    write(tmp_path / "one", dataset, [["sad"], [None]])
    with pytest.raises(UserError, match="1 utterances have both human and synthetic votes"):
        alignment(dataset, tmp_path / "one")
    text = (tmp_path / "one").read_text()
    (tmp_path / "foreign").write_text(text.replace('"toy0', '"other0'))
    with pytest.raises(UserError, match="does not hold, the first is"):
        alignment(dataset, tmp_path / "foreign")
    (tmp_path / "mixed").write_text(text.replace('"prompt": "p"', '"prompt": "q"', 1))
    with pytest.raises(UserError, match="mixes models or prompts"):
        alignment(dataset, tmp_path / "mixed")
