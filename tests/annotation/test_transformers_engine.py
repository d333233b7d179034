"""The pool of PyTorch workers: real ones that are killed, and stand-ins that die, hang or meet a deadly question."""

import os
import shutil
import signal
import sys

import pytest

from aer_jax.annotation.annotate import annotate
from aer_jax.annotation.engines.interface import Question
from aer_jax.annotation.engines.pytorch import transformers_engine
from aer_jax.annotation.engines.pytorch.transformers_engine import TransformersEngine
from aer_jax.annotation.listeners import crossed
from aer_jax.errors import UserError
from aer_jax.labels.journal import read_journal
from aer_jax.worker_process import WorkerProcess


@pytest.fixture(scope="module")
def people(task):
    return crossed(3, task.prompt.personas)


@pytest.fixture(scope="module")
def undisturbed(checkpoint, task, people, tmp_path_factory):
    """What two workers write about 4 clips by 3 listeners when nothing disturbs them."""
    out = tmp_path_factory.mktemp("undisturbed") / "journal.jsonl"
    return annotate(task, TransformersEngine(checkpoint, task, batch=5, workers=2), people, out, limit=4), out


def by_key(path):
    return {a.key: a for a in read_journal(path) if a.answered}


def test_workers_share_the_questions(undisturbed, task):
    summary, out = undisturbed
    assert summary["asked"] == 12 and summary["failed"] == 0 and len(by_key(out)) == 12
    assert summary["labelled"] + summary["unparsed"] == 12


def test_a_killed_worker_is_started_again_and_its_questions_asked_again(
    undisturbed, checkpoint, task, people, tmp_path, monkeypatch, capsys
):
    """kill -9 in the second batch, another batch size and one worker: the same answers, in order."""
    out, ask, calls = tmp_path / "journal.jsonl", WorkerProcess.ask, []

    def killed_at_second(self, message, timeout):
        if isinstance(message, dict):  # the job
            return ask(self, message, timeout)
        calls.append(len(message))
        if len(calls) == 2:
            os.kill(self.pid, signal.SIGKILL)
        return ask(self, message, timeout)

    monkeypatch.setattr(WorkerProcess, "ask", killed_at_second)
    annotate(task, TransformersEngine(checkpoint, task, batch=4), people, out, limit=4)
    assert by_key(out) == by_key(undisturbed[1]) and calls == [4] * 4
    assert "annotation worker 1 is started again: it was killed (SIGKILL" in capsys.readouterr().err


STAND_IN = """
import json, os, sys, time
json.loads(sys.stdin.readline())
print('{"ready": 1}', flush=True)
for line in sys.stdin:
    rows = json.loads(line)
    for row in rows:
        DEED
    print(json.dumps({"answers": [{"response": "sad"} for row in rows]}), flush=True)
"""


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Workers that do something about each row before they answer; returns how to say what."""

    def install(deed: str) -> None:
        script = tmp_path / "stand_in.py"
        script.write_text(STAND_IN.replace("DEED", deed))
        monkeypatch.setattr(transformers_engine, "COMMAND", [sys.executable, str(script)])

    return install


def test_a_worker_that_hangs_is_ended_and_asked_again(stand_in, checkpoint, task, people, tmp_path, capsys):
    once = tmp_path / "once"
    stand_in(f"os.path.exists({str(once)!r}) or (open({str(once)!r}, 'w').close(), time.sleep(600))")
    engine = TransformersEngine(checkpoint, task, batch=4, timeout=2)
    assert annotate(task, engine, people, tmp_path / "j")["labelled"] == 18
    assert "started again: it did not answer within 2 s" in capsys.readouterr().err


def test_a_deadly_question_fails_alone(stand_in, checkpoint, task, people, tmp_path, capsys):
    deadly = list(task.dataset.utterances)[2]
    seed = people[1].seed(deadly)
    stand_in(f"row['seed'] == {seed} and os._exit(9)")
    engine = TransformersEngine(checkpoint, task, batch=5, workers=2)
    summary = annotate(task, engine, people, tmp_path / "j")
    assert (summary["labelled"], summary["failed"]) == (17, 1)
    [failed] = [a for a in read_journal(tmp_path / "j") if a.outcome == "failed"]
    assert failed.key == (deadly, 1) and "the worker died of it: it ended with exit code 9" in failed.error
    assert capsys.readouterr().err.count("is started again") == 4


def test_workers_that_always_die_are_not_started_for_ever(stand_in, checkpoint, task, people, tmp_path):
    stand_in("os._exit(3)")
    engine = TransformersEngine(checkpoint, task, batch=4)
    with pytest.raises(UserError, match=r"worker is gone: it ended with exit code 3.*same command goes on"):
        annotate(task, engine, people, tmp_path / "j")


def test_closing_ends_the_workers(stand_in, checkpoint, task, people):
    stand_in("time.sleep(0.01)")
    pids = []

    class Noted(WorkerProcess):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            pids.append(self.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers_engine, "WorkerProcess", Noted)
        engine = TransformersEngine(checkpoint, task, batch=1, workers=3)
        answers = engine.ask([Question(id, person) for id in task.dataset.utterances for person in people])
        next(answers)
        answers.close()
    assert 1 <= len(pids) <= 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_each_worker_sees_one_gpu(stand_in, checkpoint, task, monkeypatch):
    stand_in("pass")
    seen = []
    monkeypatch.setattr(
        transformers_engine, "WorkerProcess", lambda *args, environment, **rest: seen.append(environment)
    )
    engine = TransformersEngine(checkpoint, task, workers=3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    for number in range(3):
        engine.start(number)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in seen] == ["4", "GPU-7", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    engine.start(0)
    assert "CUDA_VISIBLE_DEVICES" not in seen[3] and int(seen[3]["OMP_NUM_THREADS"]) >= 1


def test_torch_missing(checkpoint, task, people, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(transformers_engine, "COMMAND", [sys.executable, "-c", "import torch"])
    with pytest.raises(UserError, match=r"pip install 'aer-jax\[annotate\]'"):
        annotate(task, TransformersEngine(checkpoint, task), people, tmp_path / "journal.jsonl")


def test_worker_that_cannot_load_says_why(checkpoint, task, people, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"exit code 1; its last lines on stderr: .*[Ss]afetensor"):
        annotate(task, TransformersEngine(broken, task), people, tmp_path / "journal.jsonl")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_checkpoint_without_parts(checkpoint, task, tmp_path, missing):
    incomplete = tmp_path / "incomplete"
    shutil.copytree(checkpoint, incomplete)
    (incomplete / missing).unlink()
    with pytest.raises(UserError, match="incomplete holds no"):
        TransformersEngine(incomplete, task)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"batch": 0}, {"timeout": 0}])
def test_numbers_below_one(checkpoint, task, wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} must be at least 1"):
        TransformersEngine(checkpoint, task, **wrong)
