"""The engine that asks a server: any chat endpoint of the OpenAI kind that takes audio (vLLM, SGLang, hosted ones)."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import ipaddress
import os
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any
from urllib.parse import urlsplit

import soundfile
from tqdm import tqdm

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.lengths import SAMPLE_RATE
from aer_jax.proxies.attempts import Answers
from aer_jax.proxies.engine import Answer, Asked
from aer_jax.proxies.questions import Questions

NEW_TOKENS = 64  # a label is short, but some models think aloud before they say it
# By the client, for 408, 409, 429, 5xx and lost connections, waiting longer each time or as long as it is told.
RETRIES = 6
NONSENSE = 3  # how often a reply that is no chat completion is asked for


class OpenAIEngine:
    """A model behind a chat endpoint; its answers are free.

    Args:
        model: what the server calls it.
        questions: what is asked.
        base_url: of the server; "" takes OPENAI_BASE_URL. The key is OPENAI_API_KEY; a local server needs none.
        concurrency: requests under way at a time.
        timeout: seconds that one may take.
        price: dollars for a million tokens in, and out.
        send_licensed: licensed audio may leave this machine.
        retries: see RETRIES.

    Raises:
        UserError: no client, no server or no key, licensed audio would leave the machine without leave, or a number is
            out of range.
    """

    answers: Answers = "free"

    def __init__(
        self,
        model: str,
        questions: Questions,
        *,
        base_url: str = "",
        concurrency: int = 8,
        timeout: float = 600.0,
        price: tuple[float, float] = (0.0, 0.0),
        send_licensed: bool = False,
        retries: int = RETRIES,
    ):
        if concurrency < 1 or timeout <= 0 or min(price) < 0:
            raise UserError("--concurrency must be at least 1, --timeout above 0, and no --price below 0.")
        try:
            import openai
        except ModuleNotFoundError:
            raise UserError("the openai engine needs its client: pip install 'aer-jax[openai]'") from None
        url = base_url or os.environ.get("OPENAI_BASE_URL", "")
        here = bool(url) and _is_local(url)
        key = os.environ.get("OPENAI_API_KEY") or ("none" if here else "")
        if not url and not key:
            raise UserError("say which server with --base-url, or set OPENAI_API_KEY for OpenAI's own.")
        if not key:
            raise UserError(f"set OPENAI_API_KEY to the key of {url}; any word will do where it asks for none.")
        host = urlsplit(url).hostname or "api.openai.com"
        if not here:
            _consent(questions.dataset, host, send_licensed)
        self.model, self.questions, self.concurrency, self.price = model, questions, concurrency, price
        self._openai, self._host, self._key = openai, host, os.environ.get("OPENAI_API_KEY", "")
        self._client = openai.OpenAI(base_url=url or None, api_key=key, timeout=timeout, max_retries=retries)
        # The listeners of an utterance are asked one after another.
        self._audio = functools.lru_cache(maxsize=4 * concurrency)(self._encode_audio)
        self._answered = False

    def ask(self, asked: Sequence[Asked]) -> Generator[list[tuple[Asked, Answer]]]:
        """See `Engine`."""
        left = iter(asked)
        pending: dict[Future[Answer], Asked] = {}
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            while True:
                while len(pending) < 2 * self.concurrency and (pair := next(left, None)) is not None:
                    pending[pool.submit(self._answer, pair)] = pair
                if not pending:
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                failure = next((error for future in done if (error := future.exception())), None)
                yield [(pending.pop(future), future.result()) for future in done if not future.exception()]
                if failure:
                    raise failure
        finally:
            self._client.close()  # what is under way fails at once
            pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, asked: Asked) -> Answer:
        """One question; whatever concerns all of them is raised, whatever concerns this one is its error."""
        openai = self._openai
        try:
            for _ in range(NONSENSE - 1):
                with contextlib.suppress(ValueError):
                    return self._complete(asked)
            return self._complete(asked)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(f"{self._host} refuses: {self._plain(error)}; check model, key and --base-url.") from None
        except openai.RateLimitError as error:
            if getattr(error, "code", None) == "insufficient_quota":
                raise UserError(f"{self._host} has no credit left for this key; what was answered is kept.") from None
            return Answer(error=f"RateLimitError: {self._plain(error)}")
        except openai.APIConnectionError as error:
            if not self._answered:
                raise UserError(f"{self._host} cannot be reached ({self._plain(error)}); check --base-url.") from None
            return Answer(error=f"{type(error).__name__}: {self._plain(error)}")
        except (openai.OpenAIError, ValueError) as error:
            return Answer(error=f"{type(error).__name__}: {self._plain(error)}")

    def _complete(self, asked: Asked) -> Answer:
        """One request, or more where the client tries again; a reply that is no completion is a ValueError."""
        reply = self._client.chat.completions.create(
            model=self.model,
            messages=self._messages(asked),  # type: ignore[arg-type]  # plain JSON of the same form
            temperature=asked.listener.temperature,
            seed=asked.listener.seed(asked.utterance),
            max_tokens=NEW_TOKENS,
        )
        try:
            answer = _read(reply)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError(f"no chat completion: {reply}") from None
        self._answered = True
        return answer

    def _messages(self, asked: Asked) -> list[dict[str, Any]]:
        """The conversation with the clip in it."""
        system, user = self.questions.messages(asked.utterance, asked.listener.persona)
        audio = {"type": "input_audio", "input_audio": {"data": self._audio(asked.utterance), "format": "wav"}}
        content = [audio if part["type"] == "audio" else part for part in user["content"]]
        return [system, {"role": "user", "content": content}]

    def _encode_audio(self, utterance: str) -> str:
        file = io.BytesIO()
        soundfile.write(file, self.questions.dataset.audio(utterance), SAMPLE_RATE, format="WAV", subtype="PCM_16")
        return base64.b64encode(file.getvalue()).decode()

    def _plain(self, what: object) -> str:
        """On one short line, and without the key."""
        text = " ".join(str(what).split())
        return (text.replace(self._key, "[key]") if self._key else text)[:300]


def _read(reply: Any) -> Answer:
    """The answer in a chat completion; a refusal is one, as it came."""
    message, usage = reply.choices[0].message, getattr(reply, "usage", None)
    content = message.content if message.content is not None else getattr(message, "refusal", None)
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    return Answer(
        response=content or "",
        tokens_in=getattr(usage, "prompt_tokens", None),
        tokens_out=getattr(usage, "completion_tokens", None),
    )


def _is_local(url: str) -> bool:
    """Whether the server runs on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _consent(dataset: Dataset, host: str, send_licensed: bool) -> None:
    if dataset.licensed and not send_licensed:
        raise UserError(
            f"the licence of {dataset.name} forbids passing its audio on, and the openai engine would send it to "
            f"{host}; where you may, say so with --send-licensed-audio."
        )
    what = "licensed audio" if dataset.licensed else "audio"
    tqdm.write(f"{what} of {dataset.name}, and its words where they are asked about, go to {host}", file=sys.stderr)
