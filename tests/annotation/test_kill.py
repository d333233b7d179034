"""Annotations that are killed with -9 at random moments end with exactly the votes of one that is not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aer_jax.labels.journal import read_journal

SCRIPT = Path(__file__).parent / "kill_and_resume.py"
WORKER = b"aer_jax.annotation.engines.pytorch.worker"


def votes(path):
    return sorted((a.key, a.label, a.outcome, a.response) for a in read_journal(path) if a.answered)


def killed(dataset, out, kills, seed=1):
    done = subprocess.run(
        [sys.executable, SCRIPT, dataset.path, out, str(kills), str(seed)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_50_kills_of_a_stand_in_lose_and_repeat_nothing(dataset, tmp_path):
    undisturbed, disturbed = tmp_path / "whole" / "j.jsonl", tmp_path / "killed" / "j.jsonl"
    undisturbed.parent.mkdir()
    disturbed.parent.mkdir()
    killed(dataset, undisturbed, 0)
    told = killed(dataset, disturbed, 50)
    assert told["killed"] == 50 and told["torn"] >= 3, told
    expected = votes(undisturbed)
    assert len(expected) == 25 * len(dataset.utterances)
    for journal in disturbed.parent.iterdir():  # those too that came to their end between two kills
        assert votes(journal) == expected


@pytest.mark.slow
def test_three_kills_of_an_annotation_by_real_workers(checkpoint, dataset, tmp_path):
    """The command itself with two workers, killed at random moments of its work; the workers end with it."""
    command = [sys.executable, "-m", "aer_jax", "annotate", "--data", dataset.path, "--model", checkpoint]
    command += ["--listeners", "15", "--batch", "3", "--workers", "2"]
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True)
    expected, rng, out, kills = votes(tmp_path / "whole"), random.Random(5), tmp_path / "killed", 0
    while kills < 3:
        before = len(out.read_bytes().split(b"\n")) if out.exists() else 0
        process = subprocess.Popen([*command, "--out", out], start_new_session=True)
        while process.poll() is None and (not out.exists() or len(out.read_bytes().split(b"\n")) == before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        assert len(votes(out)) < len(expected) or process.returncode == 0
    subprocess.run([*command, "--out", out], check=True)
    assert votes(out) == expected
    deadline = time.monotonic() + 30
    while (left := workers()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def workers() -> list[str]:
    """Annotation workers of this test that outlived whoever started them: their parent is no annotation."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, status = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        if WORKER in words and status.rsplit(")", 1)[1].split()[1] in (
            "1",
            str(os.getpid()),
        ):
            found.append(folder.name)
    return found
