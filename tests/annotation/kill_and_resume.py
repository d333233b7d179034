"""Annotations by a stand-in engine, killed with -9 at random moments and begun again; run as a process of its own.

    python kill_and_resume.py DATASET JOURNAL KILLS SEED

Forked from one process that has imported everything, so that a round takes milliseconds. Lines are written a few bytes
at a time, and the moment of a kill is that at which the journal has grown by a random number of bytes. In every other
round two annotations are at work on the same journal.
Prints one JSON object: how many rounds were killed, lines torn and mended, and lines before each kill.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from aer_jax.annotation import annotate as annotation
from aer_jax.annotation.engines.interface import Answer
from aer_jax.annotation.listeners import crossed
from aer_jax.annotation.prompts import load_prompt
from aer_jax.annotation.task import AnnotationTask
from aer_jax.data.dataset import open_dataset
from aer_jax.labels import journal


class StandIn:
    """Says what the question's seed says, at once; one question in ten fails the first time that a process meets it."""

    model, answers = "stand-in", "free"

    def __init__(self, labels):
        self.labels = labels

    def ask(self, asked):
        for at in range(0, len(asked), 3):
            time.sleep(0.001)
            yield [(pair, self.answer(pair)) for pair in asked[at : at + 3]]

    def answer(self, pair):
        said = [*self.labels, "not sure"][pair.listener.seed(pair.utterance) % (len(self.labels) + 1)]
        return Answer(error="a hiccup") if random.random() < 0.1 else Answer(said)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def main(dataset: str, out: Path, kills: int, seed: int) -> None:
    data = open_dataset(dataset)
    task = AnnotationTask(data, load_prompt(data.classes))
    people = crossed(25, task.prompt.personas)
    annotation.ATTEMPTS = 99
    write = journal._write
    rng = random.Random(seed)

    def dribble(file: int, content: bytes) -> None:
        for at in range(0, len(content), 40):
            write(file, content[at : at + 40])
            time.sleep(0.0002)

    def child() -> int:
        pid = os.fork()
        if pid:
            return pid
        random.seed(os.getpid())
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        journal._write = dribble
        try:
            told = annotation.annotate(task, StandIn(data.classes), people, out)
            os._exit(1 if told["failed"] else 0)
        finally:  # annotate takes a last question that fails alone for an engine that answers nothing
            os._exit(1)

    killed, torn, lines, rounds = 0, 0, [], 0
    while killed < kills and rounds < 20 * kills:
        rounds += 1
        pids = [child() for _ in range(1 + rounds % 2)]
        enough, ended = size(out) + rng.randrange(2500), {}
        while size(out) < enough and len(ended) < len(pids):
            ended |= dict(os.waitpid(pid, os.WNOHANG) for pid in pids if pid not in ended)
            ended.pop(0, None)
        for pid in pids:
            if pid not in ended:
                os.kill(pid, signal.SIGKILL)
                ended[pid] = os.waitpid(pid, 0)[1]
        content = out.read_bytes() if out.exists() else b""
        killed += any(map(os.WIFSIGNALED, ended.values()))
        torn += bool(content) and not content.endswith(b"\n")
        lines.append(content.count(b"\n"))
        if 0 in ended.values():  # it came to its end: begin a new one, and go on killing
            out.replace(out.with_suffix(f".{rounds}"))
    while True:
        os.waitpid(child(), 0)
        with journal.Journal(out, "stand-in", task.fingerprint) as whole:
            if len(whole.answered) == len(data.utterances) * len(people):
                break
    print(json.dumps({"killed": killed, "torn": torn, "lines": lines}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
