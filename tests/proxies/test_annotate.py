"""Annotation from end to end through a real worker process: kill, resume, retry, and what is refused."""

import os
import shutil
import signal

import pytest

from aer_jax.errors import UserError
from aer_jax.proxies.annotate import annotate
from aer_jax.proxies.journal import read_journal
from aer_jax.proxies.model_name import model_name
from aer_jax.proxies.parsing import parse
from aer_jax.proxies.process import Worker
from aer_jax.proxies.prompts import FOLDER


@pytest.fixture(scope="module")
def undisturbed(checkpoint, dataset, tmp_path_factory):
    """An annotation of 4 clips by 3 listeners that nothing disturbs: summary and journal."""
    out = tmp_path_factory.mktemp("undisturbed") / "journal.jsonl"
    return annotate(dataset, checkpoint, out, listeners=3, limit=4, batch=5), read_journal(out)


def test_every_listener_answers_about_every_clip(undisturbed, dataset):
    summary, attempts = undisturbed
    assert [attempt.key for attempt in attempts] == [(id, i) for id in list(dataset.utterances)[:4] for i in range(3)]
    assert summary["asked"] == 12 and summary["failed"] == 0
    assert summary["labelled"] + summary["unparsed"] == 12
    for attempt in attempts:
        label = parse(attempt.response, dataset.classes)
        assert attempt.label == label and (attempt.outcome == "unparsed") == (label is None)
        assert (attempt.model, attempt.prompt) == (summary["model"], summary["prompt"])


def test_killed_worker_then_resume(undisturbed, checkpoint, dataset, tmp_path, monkeypatch):
    """kill -9 in the third batch: a clear error, two batches kept; then only the rest is asked, with equal answers."""
    out, ask, calls = tmp_path / "journal.jsonl", Worker.ask, []

    def killed_at_third(self, rows):
        calls.append([(row["utterance"], row["seed"]) for row in rows])
        if len(calls) == 3:
            os.kill(self.pid, signal.SIGKILL)
        return ask(self, rows)

    monkeypatch.setattr(Worker, "ask", killed_at_third)
    with pytest.raises(UserError, match=r"worker is gone: it was killed \(SIGKILL.*same command goes on"):
        annotate(dataset, checkpoint, out, listeners=3, limit=4, batch=4)
    assert read_journal(out) == undisturbed[1][:8]

    with out.open("ab") as file:
        file.write(b'{"utterance": "toy')  # as a kill of the parent may leave it
    assert annotate(dataset, checkpoint, out, listeners=3, limit=4, batch=7)["asked"] == 4
    assert read_journal(out) == undisturbed[1]

    monkeypatch.setattr(Worker, "__init__", lambda *_: pytest.fail("nothing is left to ask"))
    assert annotate(dataset, checkpoint, out, listeners=3, limit=4) == {
        **undisturbed[0], "asked": 0, "journal": str(out)
    }  # fmt: skip


class FakeWorker:
    """Answers "sad"; fails on every question of one listener until told otherwise."""

    fails = True
    asked: list = []  # noqa: RUF012

    def __init__(self, model, dataset):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, rows):
        self.asked += rows
        fails = [self.fails and "Go by the tone" in row["messages"][1]["content"][0]["text"] for row in rows]
        return [{"error": "OutOfMemoryError: 1"} if bad else {"response": " Sad. "} for bad in fails]


def test_failures_are_asked_again(checkpoint, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("aer_jax.proxies.annotate.Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "asked", [])
    out = tmp_path / "journal.jsonl"
    first = annotate(dataset, checkpoint, out, listeners=2)
    assert (first["labelled"], first["failed"], len(FakeWorker.asked)) == (6, 6, 12)
    monkeypatch.setattr(FakeWorker, "fails", False)
    second = annotate(dataset, checkpoint, out, listeners=2)
    assert (second["labelled"], second["failed"], second["asked"]) == (12, 0, 6)
    assert [a.outcome for a in read_journal(out)] == [None, "failed"] * 6 + [None] * 6
    more = annotate(dataset, checkpoint, out, listeners=3)
    assert (more["labelled"], more["asked"]) == (18, 6)


def test_no_answer_at_all_is_an_error(checkpoint, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("aer_jax.proxies.annotate.Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "ask", lambda self, rows: [{"error": "OutOfMemoryError: 1"} for _ in rows])
    with pytest.raises(UserError, match="all 6 questions failed, the first with: OutOfMemoryError"):
        annotate(dataset, checkpoint, tmp_path / "journal.jsonl", listeners=1)


def test_no_speaker_in_the_question(checkpoint, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("aer_jax.proxies.annotate.Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "asked", [])
    monkeypatch.setattr(FakeWorker, "fails", False)
    annotate(dataset, checkpoint, tmp_path / "journal.jsonl", listeners=1)
    for row in FakeWorker.asked:
        utterance = dataset.utterances[row["utterance"]]
        assert utterance.speaker not in str(row["messages"]) and utterance.transcript in str(row["messages"])


def test_journal_of_another_model_or_prompt(undisturbed, checkpoint, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("aer_jax.proxies.annotate.Worker", FakeWorker)
    out = tmp_path / "journal.jsonl"
    annotate(dataset, checkpoint, out, listeners=1)
    other = tmp_path / "tiny"
    shutil.copytree(checkpoint, other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(UserError, match="begun with model tiny-"):
        annotate(dataset, other, out, listeners=1)
    shutil.copytree(FOLDER, tmp_path / "prompts")
    (tmp_path / "prompts" / "system.txt").write_text("Listen.")
    with pytest.raises(UserError, match="begun with prompt"):
        annotate(dataset, checkpoint, out, listeners=1, prompts=tmp_path / "prompts")


def test_torch_missing(checkpoint, dataset, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=r"pip install 'aer-jax\[proxies\]'"):
        annotate(dataset, checkpoint, tmp_path / "journal.jsonl")


def test_worker_that_cannot_load_says_why(checkpoint, dataset, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"exit code 1; its last words: .*[Ss]afetensor"):
        annotate(dataset, broken, tmp_path / "journal.jsonl")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_checkpoint_without_parts(checkpoint, dataset, tmp_path, missing):
    incomplete = tmp_path / "incomplete"
    shutil.copytree(checkpoint, incomplete)
    (incomplete / missing).unlink()
    with pytest.raises(UserError, match="incomplete holds no"):
        annotate(dataset, incomplete, tmp_path / "journal.jsonl")
    assert not (tmp_path / "journal.jsonl").exists()


@pytest.mark.parametrize("wrong", [{"listeners": 0}, {"limit": 0}, {"batch": 0}])
def test_numbers_below_one(checkpoint, dataset, tmp_path, wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} must be at least 1"):
        annotate(dataset, checkpoint, tmp_path / "journal.jsonl", **wrong)


def test_model_name_follows_the_weights(checkpoint, tmp_path):
    copy = tmp_path / "tiny"
    shutil.copytree(checkpoint, copy)
    assert model_name(copy) == model_name(checkpoint) == model_name(f"{checkpoint}/")
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_name(copy) != model_name(checkpoint) and model_name(copy).startswith("tiny-")
