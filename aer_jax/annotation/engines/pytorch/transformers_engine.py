"""The engine that samples with PyTorch: worker processes, one GPU each where there are some, that may die or hang."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from aer_jax.annotation.engines.interface import Answer, Question
from aer_jax.annotation.engines.model_name import model_name
from aer_jax.annotation.task import AnnotationTask
from aer_jax.base.hub import find_checkpoint
from aer_jax.devices import gpus
from aer_jax.errors import UserError
from aer_jax.labels.attempts import Answers
from aer_jax.worker_process import WorkerDied, WorkerProcess

COMMAND = [sys.executable, "-m", "aer_jax.annotation.engines.pytorch.worker"]
LOADING_SECONDS = 1800.0
# A batch that costs two workers is asked question by question; a question that costs two more is given up.
TRIES = 2
# So many deaths without an answer in between, and it is not the questions.
DEATHS = 8


class _Work(NamedTuple):
    """Questions to be asked together, and how many workers died of them."""

    questions: Sequence[Question]
    deaths: int = 0


class TransformersEngine:
    """A checkpoint in PyTorch worker processes: Qwen2-Audio, or another model that takes audio.

    A worker that dies, or has not answered a batch in time, is started again and asked again, see `TRIES`.

    Args:
        model: checkpoint directory or hub id.
        task: prompt and dataset.
        constrained: let it answer with a label only.
        workers: how many processes; worker i sees GPU i modulo their number.
        batch: questions asked at a time.
        timeout: seconds that a batch may take.

    Raises:
        UserError: there is no such checkpoint, or a number is below 1.
    """

    def __init__(
        self,
        model: str | Path,
        task: AnnotationTask,
        *,
        constrained: bool = False,
        workers: int = 1,
        batch: int = 16,
        timeout: float = 600.0,
    ):
        for name, value in (("workers", workers), ("batch", batch), ("timeout", timeout)):
            if value < 1:
                raise UserError(f"--{name} must be at least 1, not {value}.")
        self.model, self.task = model_name(model), task
        self.answers: Answers = "constrained" if constrained else "free"
        self.workers, self.batch, self.timeout = workers, batch, timeout
        self._checkpoint = find_checkpoint(model)

    def ask(self, questions: Sequence[Question]) -> Generator[list[tuple[Question, Answer]]]:
        """See `Engine`."""
        batches = [_Work(questions[at : at + self.batch]) for at in range(0, len(questions), self.batch)]
        pool = _Pool(self, deque(batches))
        try:
            yield from pool.results(len(questions))
        finally:
            pool.end()

    def start(self, number: int) -> WorkerProcess:
        """The process of worker `number`; entering it loads the model."""
        visible, environment = gpus(), {}
        if visible:
            environment["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
        elif self.workers > 1:
            environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.workers))
        prompt = self.task.prompt
        job = {
            "model": str(self._checkpoint),
            "dataset": str(self.task.dataset.path),
            "example": prompt.messages("", prompt.personas[0]),
            "labels": prompt.labels if self.answers == "constrained" else None,
        }
        return WorkerProcess(
            COMMAND,
            job,
            extra="annotate",
            hint="a smaller --batch or a longer --timeout may help",
            environment=environment,
            loading_seconds=LOADING_SECONDS,
        )

    def row(self, question: Question) -> dict[str, Any]:
        """A question as JSON for the worker."""
        return {
            "utterance": question.utterance,
            "messages": self.task.messages(question.utterance, question.listener.persona),
            "temperature": question.listener.temperature,
            "seed": question.listener.seed(question.utterance),
        }


class _Pool:
    """Threads that each keep one worker alive and share the questions."""

    def __init__(self, engine: TransformersEngine, work: deque[_Work]):
        self.engine, self.work = engine, work
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._ready = False  # whether any worker was ever able to start
        self._deaths = 0  # since the last answer
        self._out: queue.Queue[list[tuple[Question, Answer]] | BaseException] = queue.Queue()
        self._alive: dict[int, WorkerProcess] = {}
        count = min(engine.workers, len(work))
        self._threads = [threading.Thread(target=self._run, args=[i], daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def results(self, count: int) -> Iterator[list[tuple[Question, Answer]]]:
        """Answers as they come, until there are `count`."""
        while count:
            some = self._out.get()
            if isinstance(some, BaseException):
                raise some
            count -= len(some)
            yield some

    def end(self) -> None:
        """End all workers and wait for their threads."""
        self._stopped.set()
        for worker in list(self._alive.values()):
            worker.kill()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        try:
            while not self._stopped.is_set():
                self._keep_asking(number)
        except BaseException as error:
            self._out.put(error)

    def _keep_asking(self, number: int) -> None:
        """Keep one worker alive and hand it questions."""
        work: _Work | None = None
        try:
            worker = self._alive[number] = self.engine.start(number)
            if self._stopped.is_set():  # `end` may have looked before it was there
                worker.kill()
            with worker:
                self._ready = True
                while not self._stopped.is_set():
                    work = self._next()
                    if work is None:
                        # Another worker may yet die and leave its questions.
                        self._stopped.wait(0.05)
                        continue
                    rows = [self.engine.row(question) for question in work.questions]
                    replies = worker.ask(rows, self.engine.timeout)["answers"]
                    self._deaths = 0
                    answers = (Answer(reply.get("response", ""), error=reply.get("error")) for reply in replies)
                    self._out.put(list(zip(work.questions, answers, strict=True)))
                    work = None
        except WorkerDied as death:
            if not self._stopped.is_set():
                self._bury(number, work, death)
        finally:
            self._alive.pop(number, None)

    def _next(self) -> _Work | None:
        with self._lock:
            return self.work.popleft() if self.work else None

    def _bury(self, number: int, work: _Work | None, death: WorkerDied) -> None:
        with self._lock:
            self._deaths += 1
            hopeless = not self._ready or self._deaths >= DEATHS
        if hopeless:
            raise UserError(
                f"the annotation worker is gone: {death}. What was answered is in the journal; the same command goes "
                "on from there."
            )
        tqdm.write(f"annotation worker {number + 1} is started again: {death}", file=sys.stderr)
        if work is None:
            return
        if work.deaths + 1 < TRIES:
            again = [_Work(work.questions, work.deaths + 1)]
        elif len(work.questions) > 1:
            again = [_Work([question]) for question in work.questions]
        else:
            self._out.put([(work.questions[0], Answer(error=f"the worker died of it: {death}"))])
            return
        with self._lock:
            self.work.extendleft(reversed(again))
