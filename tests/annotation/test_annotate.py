"""Annotation: what is asked, what is not asked again, what is refused, what is told."""

import json
import shutil

import numpy as np
import pytest

from aer_jax import cli
from aer_jax.annotation.annotate import annotate
from aer_jax.annotation.engines.interface import Answer
from aer_jax.annotation.engines.model_name import model_name
from aer_jax.annotation.engines.pytorch import transformers_engine
from aer_jax.annotation.listeners import coupled, crossed
from aer_jax.annotation.progress import Progress
from aer_jax.annotation.prompts import FOLDER, load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.errors import UserError
from aer_jax.evaluation.raters.aligned_votes import align_votes
from aer_jax.labels.attempts import RESPONSE_CHARS, Attempt
from aer_jax.labels.journal import read_journal, read_votes
from aer_jax.labels.votes import Votes


class FakeEngine:
    """Answers as it is told, "sad" by default; keeps what it was asked."""

    answers = "free"

    def __init__(self, answer=lambda pair: Answer("sad"), model="fake"):
        self.answer, self.model, self.asked, self.closed = answer, model, [], False

    def ask(self, asked):
        try:
            for at in range(0, len(asked), 4):
                self.asked += asked[at : at + 4]
                yield [(pair, self.answer(pair)) for pair in asked[at : at + 4]]
        finally:
            self.closed = True


@pytest.fixture
def out(tmp_path):
    return tmp_path / "journal.jsonl"


@pytest.fixture(scope="module")
def people(task):
    return crossed(5, task.prompt.personas)


def test_every_listener_answers_about_every_clip(task, people, out):
    summary = annotate(task, FakeEngine(), people, out, limit=4)
    ids = list(task.dataset.utterances)[:4]
    assert [a.key for a in read_journal(out)] == [(id, i) for id in ids for i in range(5)]
    for attempt in read_journal(out):
        person = people[attempt.listener]
        assert (attempt.persona, attempt.temperature) == (person.persona, person.temperature)
        assert (attempt.seed, attempt.label) == (person.seed(attempt.utterance), "sad")
        assert (attempt.model, attempt.prompt, attempt.answers) == ("fake", task.fingerprint, "free")
    assert summary == {
        "journal": str(out), "model": "fake", "prompt": task.fingerprint, "answers": "free", "utterances": 4,
        "listeners": 5, "asked": 20, "labelled": 20, "unparsed": 0, "failed": 0, "unparsed_share": 0, "given_up": 0,
        "last": {"response": "sad", "error": None}, "clips_without_vote": 0,
    }  # fmt: skip


def test_answers_are_parsed_with_the_synonyms_and_kept_as_they_came(task, people, out):
    said = ["Sad.", "sadness", "not sad", "", "I can't judge this."]
    engine = FakeEngine(lambda pair: Answer(said[pair.listener.index]))
    summary = annotate(task, engine, people, out, limit=1)
    attempts = read_journal(out)
    assert [a.response for a in attempts] == said
    assert [a.label for a in attempts] == ["sad", "sad", None, None, None]
    assert (summary["labelled"], summary["unparsed"], summary["unparsed_share"]) == (2, 3, 0.6)


def test_answered_pairs_are_not_asked_again_and_failures_are_up_to_a_limit(task, people, out):
    stubborn = FakeEngine(lambda pair: Answer(error="no memory") if pair.listener.index == 1 else Answer("sad"))
    first = annotate(task, stubborn, people[:2], out)
    assert (first["labelled"], first["failed"], first["asked"], first["given_up"]) == (6, 6, 12, 0)
    for number in (2, 3):
        with pytest.raises(UserError, match="all 6 questions failed, the first with: no memory"):
            annotate(task, stubborn, people[:2], out)
        assert sum(a.outcome == "failed" for a in read_journal(out)) == 6 * number
    given_up = annotate(task, stubborn, people[:2], out)
    assert (given_up["asked"], given_up["given_up"], given_up["failed"]) == (0, 6, 6)
    more = annotate(task, FakeEngine(), people, out)
    assert (more["asked"], more["labelled"], more["given_up"]) == (18, 24, 6)


def test_an_engine_that_gives_up_leaves_its_answers(task, people, out):
    def answer(pair):
        if len(engine.asked) > 8:
            raise UserError("the engine is gone.")
        return Answer("sad")

    engine = FakeEngine(answer)
    with pytest.raises(UserError, match="the engine is gone"):
        annotate(task, engine, people, out)
    assert len(read_journal(out)) == 8 and engine.closed
    with out.open("ab") as file:
        file.write(b'{"utterance": "toy')  # as a kill may leave it
    assert annotate(task, FakeEngine(), people, out)["asked"] == 22


def test_numbers_out_of_range(task, people, out):
    with pytest.raises(UserError, match="--limit"):
        annotate(task, FakeEngine(), people, out, limit=0)
    with pytest.raises(UserError, match="--listeners"):
        annotate(task, FakeEngine(), [], out)


def test_models_prompts_answers_and_listeners_are_not_mixed(task, people, out, dataset, tmp_path):
    annotate(task, FakeEngine(), people, out)
    with pytest.raises(UserError, match="begun with model fake, this run has other"):
        annotate(task, FakeEngine(model="other"), people, out)
    shutil.copytree(FOLDER, tmp_path / "prompts")
    (tmp_path / "prompts" / "system.txt").write_text("Listen.")
    for changed in (AnnotationTask(dataset, load_prompt(dataset.classes, tmp_path / "prompts")),
                    AnnotationTask(dataset, task.prompt, transcript=False)):  # fmt: skip
        with pytest.raises(UserError, match="begun with prompt"):
            annotate(changed, FakeEngine(), people, out)
    bound = FakeEngine()
    bound.answers = "constrained"
    with pytest.raises(UserError, match=r"begun with answers free, this run has constrained"):
        annotate(task, bound, people, out)
    with pytest.raises(UserError, match="begun with another plan: its listener 0 has the persona"):
        annotate(task, FakeEngine(), coupled(5, task.prompt.personas), out)
    assert annotate(task, FakeEngine(), people[:3], out)["asked"] == 0


def bound(answers, answer):
    engine = FakeEngine(answer)
    engine.answers = answers
    return engine


def test_only_missing_asks_about_clips_without_a_vote(task, people, out):
    """Free answers first, then constrained and exact ones for what is left, in one journal."""
    ids = list(task.dataset.utterances)
    unreadable = FakeEngine(lambda pair: Answer("sad" if pair.utterance not in ids[1:4] else "hm"))
    assert annotate(task, unreadable, people[:2], out)["clips_without_vote"] == 3
    some = annotate(task, FakeEngine(), people[:2], out.with_name("some"), limit=2)
    assert some["clips_without_vote"] == 0, "the others were not asked about"
    again = FakeEngine()
    assert annotate(task, again, people[:2], out, only_missing=True)["asked"] == 0  # it would answer the same
    assert annotate(task, again, people[:3], out, only_missing=True, limit=2)["asked"] == 1
    assert [(pair.utterance, pair.listener.index) for pair in again.asked] == [(ids[1], 2)]
    forced = bound("constrained", lambda pair: Answer("angry" if pair.utterance == ids[2] else "", error=None))
    summary = annotate(task, forced, people[:2], out, only_missing=True, limit=3)
    assert (summary["utterances"], summary["asked"], summary["labelled"]) == (1, 2, 2)
    probs = dict.fromkeys(task.prompt.labels, 0.0) | {"sad": 0.25, "angry": 0.75}
    exact = bound("exact", lambda pair: Answer(probs=probs))
    filled = annotate(task, exact, people[:2], out, only_missing=True)
    assert (filled["asked"], filled["clips_without_vote"]) == (2, 0)
    nothing = annotate(task, exact, people[:2], out, only_missing=True)
    assert (nothing["utterances"], nothing["asked"]) == (0, 0)
    assert [a.answers for a in read_journal(out)] == ["free"] * 13 + ["constrained"] * 2 + ["exact"] * 2
    # The journal still goes on in the kind that it was begun with, and in no other.
    assert annotate(task, FakeEngine(), people, out)["asked"] == 6 * 5 - 13
    with pytest.raises(UserError, match=r"begun with answers free, this run has exact.*--only-missing"):
        annotate(task, exact, people, out)
    votes = Votes(read_votes(out, task.dataset.classes)).counts(ids[2:4], ("angry", "sad"))
    np.testing.assert_allclose(votes, [[2, 3], [1.5, 3.5]])
    aligned = align_votes(task.dataset, out)
    assert aligned.answers == "26 free + 2 constrained + 2 exact"


def test_a_journal_of_another_dataset_is_refused(task, people, out, capsys):
    annotate(task, FakeEngine(), people[:1], out)
    lines = out.read_text().splitlines()
    out.write_text("".join(line.replace("toy", "yot") + "\n" for line in lines))
    before = out.read_bytes()
    with pytest.raises(UserError, match=r"is about other clips .the first is yot.*name another --out"):
        annotate(task, FakeEngine(), people[:1], out)
    assert out.read_bytes() == before
    out.write_text(lines[0].replace("toy", "yot") + "\n" + lines[1] + "\n")
    annotate(task, FakeEngine(), people[:1], out)
    assert "1 of its clips are not in" in capsys.readouterr().err


def test_a_long_response_is_parsed_whole_and_kept_in_part(task, people, out):
    said = f"<think>{'hm, ' * 5000}</think>\n\nSad."
    annotate(task, FakeEngine(lambda pair: Answer(said)), people[:1], out, limit=1)
    [attempt] = read_journal(out)
    assert attempt.label == "sad" and len(attempt.response) < RESPONSE_CHARS + 40
    assert attempt.response.startswith("<think>hm") and attempt.response.endswith("</think>\n\nSad.")
    assert f"[{len(said) - RESPONSE_CHARS} characters left out]" in attempt.response


def test_no_vote_at_all_is_a_failure(task, checkpoint, out, capsys, monkeypatch):
    monkeypatch.setattr(transformers_engine, "TransformersEngine", lambda *_, **__: engine)
    words = ["annotate", "--data", task.dataset.path, "--model", checkpoint, "--out", out, "--listeners", "1"]
    engine = FakeEngine(lambda pair: Answer("I cannot tell."))
    assert cli.main([*map(str, words)]) == 2
    printed = capsys.readouterr()
    assert (
        "0 votes of 6 answers, 6 unparsed" in printed.out and "6 clips were asked about and have no vote" in printed.out
    )
    assert 'no vote came; the last answer is "I cannot tell.", which is no label' in printed.err
    engine = bound("constrained", lambda pair: Answer("sad"))
    assert cli.main([*map(str, words), "--only-missing", "--answers", "constrained"]) == 0
    assert "6 votes of 6 answers" in capsys.readouterr().out
    assert cli.main([*map(str, words), "--only-missing", "--answers", "constrained"]) == 0
    assert "every clip has a vote" in capsys.readouterr().out


def test_progress_tells_rate_time_and_unparsed():
    """From the first answers on: loading the model, here 100 s, is no part of the rate."""
    seconds = iter([100.0, 110.0])
    attempt = Attempt("u", 0, "", 0.5, 1, "p", "m", "sad", "sad")
    unparsed = Attempt("u", 1, "", 0.5, 1, "p", "m", "hm", None, "unparsed")
    with Progress(1000, 960, 4, lambda: next(seconds)) as progress:
        progress.update([attempt] * 8)
        assert progress.sentence() == "0.0% unparsed"
        progress.count, progress.left = 10, 30  # as if two more had come
        progress.outcomes["unparsed"] += 2
        assert progress.sentence() == "0.05 utterances/s, 02:30 to the end, 20.0% unparsed"
    with Progress(2, 0, 1) as progress:
        progress.update([unparsed])
        assert progress.sentence() == "100.0% unparsed"


def test_command_line(task, checkpoint, tmp_path, capsys):
    """Words that contradict each other are refused before anything is loaded."""
    base = ["annotate", "--data", str(task.dataset.path), "--model", str(checkpoint), "--out", str(tmp_path / "j")]

    def refused(*more):
        assert cli.main([*base, *more]) == 2
        return capsys.readouterr().err

    assert "leave --answers free out" in refused("--engine", "exact", "--answers", "free")
    assert "leave --answers constrained out" in refused("--engine", "openai", "--answers", "constrained")
    assert "mesh.fsdp=2 is a setting of --engine exact" in refused("mesh.fsdp=2")
    assert "train.lr=1 is no setting of --engine exact" in refused("--engine", "exact", "train.lr=1")
    assert "toy has no conversations" in refused("--context", "2")
    assert "set OPENAI_API_KEY" in refused("--engine", "openai")
    assert not (tmp_path / "j").exists()


def test_the_exact_engine_by_command(task, checkpoint, tmp_path, capsys):
    out = tmp_path / "j"
    words = ["annotate", "--data", task.dataset.path, "--model", checkpoint, "--out", out, "--engine", "exact"]
    assert cli.main([*map(str, words), "--listeners", "3", "--limit", "2", "--temperatures", "0.5,1"]) == 0
    assert "6 votes of 6 answers, 0 unparsed (0.0%)" in capsys.readouterr().out
    assert [json.loads(line)["temperature"] for line in out.read_text().splitlines()[:3]] == [0.5, 1.0, 0.5]


def test_model_name_follows_the_weights(checkpoint, tmp_path):
    copy = tmp_path / "tiny"
    shutil.copytree(checkpoint, copy)
    assert model_name(copy) == model_name(checkpoint) == model_name(f"{checkpoint}/")
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_name(copy) != model_name(checkpoint) and model_name(copy).startswith("tiny-")
