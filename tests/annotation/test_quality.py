"""The whole of `aer-jax proxies`: a journal with a known story is told right, in words, as JSON and as a figure."""

import json

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from aer_jax import cli
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.preparation.prepare import prepare
from aer_jax.errors import UserError
from aer_jax.evaluation.raters.quality import quality
from aer_jax.reports.votes_text import text

CLASSES = ("angry", "happy", "neutral", "sad")
PERSONAS = ("ears", "words")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sixty toy clips of ten speakers, half of them with low voices."""
    return prepare(toy.generate(clips=60, speakers=10), tmp_path_factory.mktemp("quality") / "dataset")


def write(path, dataset, answers, *, prompt="p", exact=False):
    """A journal in which listener l says answers[n][l] about clip n; None is unparsed, "!" failed, a dict exact."""
    with path.open("w") as file:
        for id, row in zip(dataset.utterances, answers, strict=False):
            for i, label in enumerate(row):
                line = {"utterance": id, "listener": i, "persona": PERSONAS[i % 2], "temperature": 0.5 + 0.5 * (i // 2)}
                line |= {"seed": 1, "prompt": prompt, "model": "m", "response": ""}
                if exact:
                    line |= {"answers": "exact", "probs": label}
                elif label in CLASSES:
                    line |= {"label": label}
                else:
                    line |= {"outcome": "failed" if label == "!" else "unparsed"}
                file.write(json.dumps(line) + "\n")
    return path


@pytest.fixture(scope="module")
def laws(corpus):
    truth = toy.truth(clips=60, speakers=10)
    return np.array([truth[id] for id in corpus.utterances])


@pytest.fixture(scope="module")
def journal(corpus, laws):
    """Four listeners of the toy listeners' own law; the fourth is often not understood."""
    rng = np.random.default_rng(0)
    answers = [[CLASSES[rng.choice(4, p=p_k)] for _ in range(4)] for p_k in laws]
    for row in answers[::2]:
        row[3] = None
    answers[0][2] = "!"
    return write(corpus.path.parent / "votes.jsonl", corpus, answers)


def test_figures_are_those_of_the_votes(corpus, journal):
    found = quality(corpus, journal)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    said = {
        id: [line["label"] for line in lines if line["utterance"] == id and "label" in line] for id in corpus.utterances
    }
    human = {id: [v.label for v in corpus.votes if v.utterance == id] for id in corpus.utterances}
    p_nk, q_nk = (np.array([[votes[id].count(c) / len(votes[id]) for c in CLASSES] for id in corpus.utterances])
                  for votes in (human, said))  # fmt: skip
    assert found["js"] == pytest.approx(np.mean(jensenshannon(p_nk, q_nk, base=2, axis=1) ** 2), abs=1e-12)
    assert (found["utterances"], found["speakers"], found["listeners"], found["asked"]) == (60, 10, 4, 240)
    assert found["unparsed_share"] == 30 / 240 and found["failed_share"] == 1 / 240
    assert found["votes"] == {"human": 5.0, "synthetic": 209 / 60}
    assert found["by_listener"][3]["unparsed_share"] == 0.5 and found["by_listener"][3]["n"] == 30
    assert found["p_shuffled"] == 0.001 and found["crossed"]
    ears = found["by_persona"][0]
    mine = [line["label"] for line in lines if line["persona"] == "ears" and "label" in line]
    assert ears["labels"]["sad"] == pytest.approx(mine.count("sad") / len(mine)) and ears["listeners"] == 2
    assert [row["temperature"] for row in found["by_temperature"]] == [0.5, 1.0]
    assert found["alpha"]["human"]["ci"][0] < found["alpha"]["human_synthetic"]["value"]
    assert found["groups"]["attribute"] == "voice" and set(found["groups"]["rows"]) == {"high", "low"}
    assert len(found["saturation"]["js"]) in (3, 4)
    rows = found["pooling"]["rows"]
    assert rows["learned"]["loss"] < rows["synthetic"]["loss"] and 0.2 < rows["learned"]["weight"] < 5
    assert found["pooling"]["learned_on"] + found["pooling"]["n"] == 60


def test_words_json_and_figure(corpus, journal, tmp_path, capsys):
    args = ["proxies", "--data", str(corpus.path), "--journal", str(journal)]
    assert cli.main([*args, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    parts = (
        "12.5% unparsed,Best constant,Half the listeners vs half,alpha,ambiguity,by persona,by temperature,too often"
    )
    for part in (parts + ",by voice,number of votes,pooling,a learned weight").split(","):
        assert part in said
    assert max(map(len, said.splitlines())) < 160
    stored = json.loads((tmp_path / "out" / "proxies.json").read_text())
    assert (tmp_path / "out" / "proxies.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == stored
    assert cli.main([*args, "--group", "height"]) == 2
    assert "Known: voice, speaker" in capsys.readouterr().err


def test_the_exact_proxy_stands_beside_its_votes(corpus, journal, laws, tmp_path):
    probs = [[dict(zip(CLASSES, p_k.tolist(), strict=True))] * 4 for p_k in laws]
    exact = write(tmp_path / "exact", corpus, probs, exact=True)
    found = quality(corpus, journal, exact)
    human = {id: [v.label for v in corpus.votes if v.utterance == id] for id in corpus.utterances}
    human_nk = np.array([[human[id].count(c) / 5 for c in CLASSES] for id in corpus.utterances])
    limit = np.mean(jensenshannon(human_nk, laws, base=2, axis=1) ** 2)
    assert found["exact"]["js"] == pytest.approx(limit, abs=1e-6)
    assert found["exact"]["js"] < found["js"]
    assert found["exact"]["differs"] == ["free answers (the exact ones are bound to the labels)"]
    assert "exact proxy" in text(found)
    alone = quality(corpus, exact)
    assert alone["answers"] == "exact" and alone["unparsed_share"] == 0
    assert alone["js"] == pytest.approx(limit, abs=1e-6)
    with pytest.raises(UserError, match="holds sampled votes"):
        quality(corpus, exact, journal)


def test_little_is_said_of_little(corpus, tmp_path):
    """One speaker, one listener: no interval, no fit, no pooling, and nothing falls over."""
    first = next(iter(corpus.utterances.values())).speaker
    answers = [["sad"] if u.speaker == first else [None] for u in corpus.utterances.values()]
    found = quality(corpus, write(tmp_path / "j", corpus, answers))
    assert found["speakers"] == 1 and found["ci"]["js"] is None and found["saturation"]["inverse"] is None
    assert found["pooling"]["reason"] and "nothing to say" in text(found)
    json.dumps(found, allow_nan=False)


def test_journals_that_cannot_be_compared(corpus, tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="is empty"):
        quality(corpus, tmp_path / "empty")
    one = write(tmp_path / "one", corpus, [["sad"], [None]])
    with pytest.raises(UserError, match="1 utterances have both human and synthetic votes"):
        quality(corpus, one)
    lines = one.read_text()
    (tmp_path / "foreign").write_text(lines.replace('"toy0', '"other0'))
    with pytest.raises(UserError, match="does not hold, the first is"):
        quality(corpus, tmp_path / "foreign")
    (tmp_path / "mixed").write_text(lines.replace('"prompt": "p"', '"prompt": "q"', 1))
    with pytest.raises(UserError, match="mixes models or prompts"):
        quality(corpus, tmp_path / "mixed")
