"""The journal of synthetic votes: append-only JSONL, one line an attempt, safe against a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from aer_jax.errors import UserError, nearest
from aer_jax.labels.votes import Vote


@dataclass(frozen=True)
class Attempt:
    """One line: a listener was asked about an utterance.

    Attributes:
        utterance: id of the utterance.
        listener: index of the listener.
        persona: the line it was given.
        temperature: of its sampling.
        seed: of this answer's sampling.
        prompt: fingerprint of prompt, personas and labels.
        model: name and fingerprint of the annotating model.
        response: what it said, as it came; "" where the attempt failed.
        label: the parsed answer, or None.
        outcome: why there is no label, or None where there is one.
        error: what went wrong where the outcome is "failed".
    """

    utterance: str
    listener: int
    persona: str
    temperature: float
    seed: int
    prompt: str
    model: str
    response: str
    label: str | None = None
    outcome: Literal["unparsed", "failed"] | None = None
    error: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Who was asked about what."""
        return self.utterance, self.listener

    @property
    def answered(self) -> bool:
        """A label or an unparsed response; failures are asked again."""
        return self.outcome != "failed"


class Journal:
    """A journal opened to be continued by one model with one prompt; nobody else can write to it meanwhile.

    Args:
        path: the file; made where it does not exist.
        model: name of the annotating model.
        prompt: fingerprint of the prompt.

    Attributes:
        attempts: the lines so far.
        repaired: what was cut off its end after a kill, or "".

    Raises:
        UserError: it was begun with another model or prompt, another process writes to it, a line other than
            the last is damaged, or it cannot be written.
    """

    def __init__(self, path: Path, model: str, prompt: str):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise UserError(f"the journal {path} cannot be written ({error.strerror}).") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"another annotation is writing to {path}; wait for it or name another.") from None
        try:
            self.repaired = self._repair()
            self.attempts = read_journal(path)
            self._refuse_mixture(model, prompt)
        except UserError:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, attempts: Iterable[Attempt]) -> None:
        """Write attempts; when this returns they are on the disk."""
        attempts = list(attempts)
        lines = [{k: v for k, v in asdict(attempt).items() if v is not None} for attempt in attempts]
        self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.attempts += attempts

    def latest(self) -> dict[tuple[str, int], Attempt]:
        """The last attempt of each pair of utterance and listener."""
        return {attempt.key: attempt for attempt in self.attempts}

    def _repair(self) -> str:
        """A kill can only have hurt what follows the last newline: keep it if it is whole, else cut it off."""
        self._file.seek(0)
        content = self._file.read()
        tail = content[content.rfind(b"\n") + 1 :]
        if not tail:
            return ""
        try:
            json.loads(tail)
            self._file.write(b"\n")
        except ValueError:
            self._file.truncate(len(content) - len(tail))
        self._file.flush()
        os.fsync(self._file.fileno())
        return tail.decode(errors="replace")

    def _refuse_mixture(self, model: str, prompt: str) -> None:
        for attempt in self.attempts:
            for what, begun, now in (("model", attempt.model, model), ("prompt", attempt.prompt, prompt)):
                if begun != now:
                    raise UserError(
                        f"{self.path} was begun with {what} {begun}, this run has {now}; votes of the two must "
                        "not mix, so name another --out."
                    )


def read_journal(path: Path) -> list[Attempt]:
    """Every line of a journal; a last line without its newline is not there yet.

    Raises:
        UserError: there is no such file, or a line is not an attempt; the line is named.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"the journal {path} cannot be read ({error.strerror}).") from None
    lines = content.split(b"\n")[:-1]
    return [_attempt(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def read_votes(journal: Path, classes: Sequence[str]) -> list[Vote]:
    """The answered lines of a journal as votes.

    Returns:
        one vote a label: its source is the model, its rater the model and listener.

    Raises:
        UserError: a line is damaged, its label is none of `classes`, or it answers a pair a second time.
    """
    votes: dict[tuple, Vote] = {}
    for number, attempt in enumerate(read_journal(journal), 1):
        if attempt.label is None:
            continue
        where = f"{journal}, line {number}"
        if attempt.label not in classes:
            raise UserError(
                f'{where}: the label "{attempt.label}" is none of {", ".join(classes)}.'
                f"{nearest(attempt.label, classes)}"
            )
        key = (attempt.model, attempt.prompt, *attempt.key)
        if key in votes:
            raise UserError(
                f"{where}: a second answer of listener {attempt.listener} about {attempt.utterance}; delete one."
            )
        rater = f"{attempt.model}#{attempt.listener}"
        votes[key] = Vote(attempt.utterance, attempt.label, rater=rater, source=attempt.model)
    return list(votes.values())


def _attempt(line: bytes, where: str) -> Attempt:
    try:
        values = json.loads(line)
        attempt = Attempt(**values)
    except (ValueError, TypeError):
        raise UserError(f"{where} is not a line of an annotation journal.") from None
    kinds = {"listener": int, "temperature": (int, float), "seed": int}
    for field in fields(Attempt)[:8]:
        if not isinstance(values[field.name], kinds.get(field.name, str)):
            raise UserError(f"{where}: {field.name} is {values[field.name]!r}.")
    known = attempt.outcome in (None, "unparsed", "failed")
    if not known or (attempt.label is None) == (attempt.outcome is None):
        raise UserError(f'{where} must have either a label or the outcome "unparsed" or "failed".')
    return attempt
