"""Chat templates: programs that a checkpoint brings, tried where they can do no harm and rendered by transformers.

Jinja's sandbox keeps a template from the machine, not from its time and memory: `{{ 10**10**8 }}` is enough. So a
template that is not transformers' own is tried first in a separate process with limits on both.
"""

from __future__ import annotations

import functools
import json
import math
import os
import resource
import subprocess
import sys
import time
from typing import Any

from aer_jax.errors import UserError

Messages = list[dict[str, Any]]  # as `apply_chat_template` takes them

SECONDS, MEMORY = 3, 4 << 30  # of the trial: a template takes milliseconds, what it is rendered with 0.3 GB
PATIENCE = 60  # seconds by the clock, on a busy machine
LONGEST = 100_000  # characters that a template may make of a short conversation

SYSTEM, WORDS, ANSWER = "You listen to a voice.", 'Words: "It is late."', "neutral"
TRIAL: Messages = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": [{"type": "text", "text": f"{WORDS}\n"}, {"type": "audio", "audio_url": "recording"}]},
]


def rendered(processor: Any, messages: Messages, path: Any, *, answer: str | None = None) -> str:
    """A conversation as text, up to where the model is to answer, or with its answer.

    Args:
        processor: any of transformers' that has a chat template.
        messages: the conversation.
        path: of the checkpoint, for the message.
        answer: what the assistant says.

    Raises:
        UserError: the template cannot render it.
    """
    if answer is not None:
        messages = [*messages, {"role": "assistant", "content": answer}]
    try:
        return processor.apply_chat_template(messages, add_generation_prompt=answer is None, tokenize=False)
    except Exception as error:  # whatever a template or its filters raise
        raise UserError(_fails(path, f"{type(error).__name__}: {error}")) from None


def try_template(processor: Any, path: Any) -> None:
    """Render a short conversation in a process with bounded time and memory.

    Raises:
        UserError: the template takes too much of either, or writes too much.
    """
    template = getattr(processor, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):  # there is nothing to run
        return
    own = getattr(type(processor), "default_chat_template", None)
    if isinstance(own, property) and template == processor.default_chat_template:
        return
    tokens = {name: token for name, token in processor.tokenizer.special_tokens_map.items() if isinstance(token, str)}
    if why := _trial(template, json.dumps(tokens)):
        raise UserError(_fails(path, why))


def _fails(path: Any, why: str) -> str:
    return f"the chat template of {path} cannot render a conversation ({' '.join(why.split())[:200]}); replace it."


@functools.cache
def _trial(template: str, tokens: str) -> str | None:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # their threads reserve memory
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps([template, json.loads(tokens)]),
            capture_output=True,
            text=True,
            env=environment,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"it takes longer than {PATIENCE} s"
    if done.returncode < 0:
        return f"it takes more than {SECONDS} s or {MEMORY >> 30} GiB"
    if done.returncode:
        return f"its trial ended with {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    return json.loads(done.stdout)


def main() -> None:
    """The trial: a template and its special tokens come in as JSON; why it cannot be used, or null, goes out."""
    from transformers.utils.chat_template_utils import render_jinja_template

    template, tokens = json.load(sys.stdin)
    used = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    why = None
    try:
        for turns, ask in ((TRIAL, True), ([*TRIAL, {"role": "assistant", "content": ANSWER}], False)):
            made = render_jinja_template([turns], chat_template=template, add_generation_prompt=ask, **tokens)
            if (length := len(made[0][0])) > LONGEST:
                why = f"it writes {length:,} characters for a conversation of a few words"
    except MemoryError:
        why = f"it takes more than {MEMORY >> 30} GiB"
    except Exception:  # which ends any rendering as soon, and is said there
        pass
    json.dump(why, sys.stdout)


if __name__ == "__main__":
    main()
