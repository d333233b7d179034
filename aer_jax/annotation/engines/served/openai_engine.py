"""The engine for chat endpoints of the OpenAI kind that take audio (vLLM, SGLang, hosted ones)."""

from __future__ import annotations

import base64
import functools
import io
import os
import random
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import Any

import soundfile
from tqdm import tqdm

from aer_jax.annotation.engines.interface import Answer, Question
from aer_jax.annotation.engines.served.address import Address, server_address
from aer_jax.annotation.engines.served.completions import error_code, error_message, one_line, read_completion
from aer_jax.annotation.engines.served.http_client import http_client, retry_after
from aer_jax.annotation.engines.served.request import EXTENSIONS, Request, parse_request
from aer_jax.annotation.task import AnnotationTask
from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.data.dataset import Dataset
from aer_jax.errors import Unfinished, UserError
from aer_jax.labels.attempts import Answers
from aer_jax.labels.parsing import parse, synonyms_of

# For 408, 409, 429, 5xx and lost connections, waiting longer each time or as long as the server says.
RETRIES = 6
FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0  # seconds
OVERDUE = 2  # times --timeout after which a request is given up, even if its reply still dribbles in
CONNECT = 30.0  # seconds until a server must have taken a connection
NONSENSE = 3  # how often a reply that is no chat completion is asked for
# A server that wants longer pauses than this many seconds halts the run, and one that wants longer than a day ends it.
PAUSE, LONGEST_PAUSE = 60.0, 86_400.0
# Concurrent questions before the first answer: a server may refuse all of them.
PROBES = 3


class OpenAIEngine:
    """A model behind a chat endpoint; its answers are free.

    Args:
        model: what the server calls it.
        task: prompt and dataset.
        base_url: of the server; "" takes OPENAI_BASE_URL. The key is OPENAI_API_KEY; a local server needs none.
        concurrency: requests under way at a time.
        timeout: seconds that one may take.
        send_licensed: licensed audio may leave this machine.
        request: changes of the request's fields, see `parse_request`.
        retries: see RETRIES.

    Raises:
        UserError: no client, no server or no key, licensed audio would leave the machine without leave, or a number is
            out of range.
    """

    answers: Answers = "free"

    def __init__(
        self,
        model: str,
        task: AnnotationTask,
        *,
        base_url: str = "",
        concurrency: int = 8,
        timeout: float = 600.0,
        send_licensed: bool = False,
        request: str = "",
        retries: int = RETRIES,
    ):
        if not (concurrency >= 1 and 0 < timeout < 1e6):
            raise UserError("--concurrency must be at least 1 and --timeout above 0.")
        try:
            import openai
        except ModuleNotFoundError:
            raise UserError("the openai engine needs its client: pip install 'aer-jax[openai]'") from None
        address = server_address(base_url)
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not self._key and not address.local:
            if not base_url and not os.environ.get("OPENAI_BASE_URL"):
                raise UserError("say which server with --base-url, or set OPENAI_API_KEY for OpenAI's own.")
            raise UserError(f"set OPENAI_API_KEY to the key of {address.url}; any word will do where it asks for none.")
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError("OPENAI_API_KEY holds characters that no key has, such as a line break; set it again.")
        if not address.local:
            _consent(task.dataset, address, send_licensed)
        self.model, self.task, self.concurrency = model, task, concurrency
        self._openai, self._host, self._timeout, self._retries = openai, address.host, timeout, retries
        self._request = parse_request(request)
        self._client = openai.OpenAI(
            base_url=address.url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=openai.Timeout(timeout, connect=min(timeout, CONNECT)),
            default_headers={"Accept-Encoding": "identity"},
            http_client=http_client(address, timeout),
        )
        # The listeners of an utterance are asked one after another.
        self._audio = functools.lru_cache(maxsize=4 * concurrency)(self._encode_audio)
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._answered = False
        self._pause_ends = 0.0
        self._begun: dict[Question, float] = {}  # when each request that is under way was sent

    def ask(self, questions: Sequence[Question]) -> Generator[list[tuple[Question, Answer]]]:
        """See `Engine`."""
        left = iter(_probes_first(questions))
        pending: dict[Future[Answer], Question] = {}
        failed = 0
        late = Answer(error=f"no reply within {OVERDUE * self._timeout:g} s (--timeout)")
        try:
            while True:
                probing = not self._answered
                most = max(1, min(PROBES, self.concurrency) - failed) if probing else self.concurrency
                while len(pending) < most and (pair := next(left, None)) is not None:
                    pending[self._start(pair)] = pair
                if not pending:
                    break
                done, _ = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                overdue = [(pending.pop(future), late) for future in self._overdue(pending)]
                fatal = next((error for future in done if (error := future.exception())), None)
                some = [(pending.pop(future), future.result()) for future in done if not future.exception()]
                failed += len(some)
                yield some + overdue
                if fatal:
                    raise fatal
        finally:
            self._stopped.set()
            self._client.close()

    def _overdue(self, pending: Mapping[Future[Answer], Question]) -> list[Future[Answer]]:
        """Questions whose requests have exceeded the total time, as a reply that comes byte by byte does."""
        now, begun = time.monotonic(), self._begun
        return [
            future
            for future, pair in pending.items()
            if not future.done() and now - begun.get(pair, now) > OVERDUE * self._timeout
        ]

    def _start(self, question: Question) -> Future[Answer]:
        """Ask in a daemon thread; a pool's would keep the process alive after Ctrl-C."""
        future: Future[Answer] = Future()

        def run() -> None:
            try:
                future.set_result(self._answer(question))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def _answer(self, question: Question) -> Answer:
        """Answer one question; errors that concern all questions are raised, others are this answer's."""
        openai, tries, nonsense = self._openai, 0, 0
        while True:
            if self._stopped.wait(max(0.0, self._pause_ends - time.monotonic())):
                return Answer(error="the run was stopped")
            delay, request = None, self._request
            try:
                return self._complete(question, request)
            except openai.APIStatusError as error:
                failure = f"HTTP {error.status_code}: {self._plain(error_message(error.response.content))}"
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    if self._leave_out(error, request):
                        continue
                    return Answer(error=f"{failure} (--request leaves fields out or names them otherwise)")
                self._refuse_without_credit(error)
                delay = retry_after(error.response.headers)
                if delay is not None and delay > PAUSE:
                    self._pause(delay)
                    continue
            except openai.APIConnectionError as error:
                failure = self._plain(f"{type(error).__name__}: {error.__cause__ or error}")
                if tries >= self._retries and not self._answered:
                    raise UserError(f"{self._host} cannot be reached ({failure}); check --base-url.") from None
            except openai.OpenAIError as error:
                return Answer(error=self._plain(f"{type(error).__name__}: {error}"))
            except ValueError as error:
                failure, nonsense = f"no chat completion: {self._plain(str(error))}", nonsense + 1
                if nonsense >= NONSENSE:
                    return Answer(error=failure)
                continue
            if tries >= self._retries:
                return Answer(error=failure)
            backoff = min(LONGEST_DELAY, FIRST_DELAY * 2**tries) * random.uniform(0.75, 1)
            self._stopped.wait(backoff if delay is None else delay)
            tries += 1

    def _complete(self, question: Question, request: Request) -> Answer:
        """Send one request; ValueError for a reply that is no completion, UserError for one that ends the run."""
        openai = self._openai
        self._begun[question] = time.monotonic()
        try:
            reply = self._client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=self._messages(question),  # type: ignore[arg-type]  # plain JSON of the same form
                extra_body=request.fields(question.listener, question.utterance),
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            message = self._plain(error_message(error.response.content))
            raise UserError(f"{self._host} refuses: {message}; check model, key and --base-url.") from None
        except openai.APIStatusError as error:
            if 300 <= error.status_code < 400:
                to = self._plain(error.response.headers.get("location", "another address"))
                raise UserError(
                    f"{self._host} redirects to {to}; give that one as --base-url if you trust it."
                ) from None
            raise
        finally:
            self._begun.pop(question, None)
        content = reply.http_response.content
        try:
            answer = read_completion(content, self._is_label)
        except ValueError as error:
            raise ValueError(f"{error}: {content[:200].decode(errors='replace')}") from None
        self._answered = self._answered or answer.error is None
        return replace(answer, request=request.text)

    def _refuse_without_credit(self, error: Any) -> None:
        if error_code(error.response.content) == "insufficient_quota":
            raise UserError(f"{self._host} has no credit left for this key; what was answered is kept.") from None

    def _leave_out(self, error: Any, request: Request) -> bool:
        """Whether a request was refused for a field that only some servers know, which is then left out."""
        message = error.response.text
        if not any(request.sends(name) and name in message for name in EXTENSIONS):
            return False
        with self._lock:
            if any(self._request.sends(name) for name in EXTENSIONS):
                self._request = self._request.without(EXTENSIONS)
                tqdm.write(
                    f"{self._host} does not take {', '.join(EXTENSIONS)}: they are left out, and the cut-offs and "
                    "penalties of its own, if it has any, shape the answers",
                    file=sys.stderr,
                )
        return True

    def _pause(self, seconds: float) -> None:
        if seconds > LONGEST_PAUSE:
            raise Unfinished(
                f"{self._host} asks for a pause of {seconds / 86_400:.3g} days; what was answered is kept, and the "
                "same command goes on."
            )
        with self._lock:
            ends = time.monotonic() + seconds
            if ends > self._pause_ends + 1:
                self._pause_ends = ends
                until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
                tqdm.write(
                    f"{self._host} asks for a pause of {tqdm.format_interval(seconds)}: waiting until {until}; after "
                    "Ctrl-C the same command goes on",
                    file=sys.stderr,
                )

    def _is_label(self, text: str) -> bool:
        labels = self.task.prompt.labels
        return parse(text, labels, synonyms_of(self.task.dataset.name, labels)) is not None

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        system, user = self.task.messages(question.utterance, question.listener.persona)
        audio = {"type": "input_audio", "input_audio": {"data": self._audio(question.utterance), "format": "wav"}}
        content = [audio if part["type"] == "audio" else part for part in user["content"]]
        return [system, {"role": "user", "content": content}]

    def _encode_audio(self, utterance: str) -> str:
        file = io.BytesIO()
        soundfile.write(file, self.task.dataset.audio(utterance), SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return base64.b64encode(file.getvalue()).decode()

    def _plain(self, text: str) -> str:
        return one_line(text, self._key)


def _probes_first(questions: Sequence[Question]) -> list[Question]:
    """The questions in order, after one question each about utterances at the beginning, middle and end."""
    ids = list(dict.fromkeys(pair.utterance for pair in questions))
    probes = dict.fromkeys(ids[at * (len(ids) - 1) // (PROBES - 1)] for at in range(PROBES))
    first = {pair.utterance: pair for pair in reversed(questions)}
    ahead = [first[id] for id in probes]
    return ahead + [pair for pair in questions if pair not in ahead]


def _consent(dataset: Dataset, address: Address, send_licensed: bool) -> None:
    if dataset.licensed and not send_licensed:
        raise UserError(
            f"the licence of {dataset.name} forbids passing its audio on, and the openai engine would send it to "
            f"{address.way}; where you may, say so with --send-licensed-audio."
        )
    what = "licensed audio" if dataset.licensed else "audio"
    tqdm.write(
        f"{what} of {dataset.name}, and its words where they are asked about, go to {address.way}", file=sys.stderr
    )
