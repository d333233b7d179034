"""Journal of synthetic votes: append-only JSONL, one line per attempt, safe against a kill at any moment.

Any number of processes may write to one journal. Each append holds the file's lock for as long as it takes to read
what others have written meanwhile, to repair a line that a killed writer left unfinished, and to write; an answer that
another process was quicker to give is not written a second time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import reprlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aer_jax.errors import UserError, nearest
from aer_jax.files.json_text import parse_json
from aer_jax.labels.attempts import Attempt, parse_attempt
from aer_jax.labels.votes import Vote, Votes

__all__ = ["Attempt", "Journal", "read_journal", "read_votes", "votes_of"]

BEGINNING = b'{"utterance": '  # of every line that a writer can have left unfinished

# What a power cut may cost at most, in lines or in seconds of writing; a kill costs none of it.
SYNC_LINES, SYNC_SECONDS = 256, 2.0


class Journal:
    """A journal opened to be continued by one model, asked with one prompt.

    Args:
        path: the file; made where it does not exist.
        model: name of the annotating model.
        prompt: fingerprint of the prompt.
        answers: see `Attempt`.
        fill: continue also a journal that was begun with another kind of answers. Each line says of which kind it is; a
            pair that was answered in another kind, but has no vote, may then be asked again.

    Attributes:
        answered: pairs of utterance and listener that need not be asked again.
        utterances, voted: those that were asked about, and those that have a vote.
        failures: pair -> how often it failed with this kind of answers.
        latest: pair -> its latest attempt.
        listeners: listener -> its persona and temperature, as the lines say.
        repaired: the unfinished lines that were found so far, as they were.

    Raises:
        UserError: it was begun with another model, prompt or kind of answers, a line other than the last is damaged,
            or it cannot be written or locked.
    """

    def __init__(self, path: Path, model: str, prompt: str, answers: str = "free", *, fill: bool = False):
        self.path, self._answers, self._fill = path, answers, fill
        self._expected = {"model": model, "prompt": prompt}
        self.answered: set[tuple[str, int]] = set()
        self.utterances: set[str] = set()
        self.voted: set[str] = set()
        self.failures: dict[tuple[str, int], int] = {}
        self.latest: dict[tuple[str, int], Attempt] = {}
        self.listeners: dict[int, tuple[str, float]] = {}
        self.repaired: list[str] = []
        self._read_bytes = self._read_lines = self._unsynced = 0
        self._synced_at = time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"the journal {path} cannot be written ({error.strerror}).") from None
        try:
            with self._locked():
                self._catch_up()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def append(self, attempts: Iterable[Attempt]) -> list[Attempt]:
        """Write attempts, but for those that another process has answered meanwhile.

        When this returns, a kill of this process loses none of them; see SYNC_LINES for what a power cut may cost.

        Returns:
            the attempts that were written.
        """
        with self._locked():
            self._catch_up()
            new = [attempt for attempt in attempts if attempt.key not in self.answered]
            content = "".join(attempt.line() for attempt in new).encode()
            _write(self._file, content)
            self._read_bytes += len(content)
            self._read_lines += len(new)
            for attempt in new:
                self._note(attempt)
        self._unsynced += len(new)
        if self._unsynced >= SYNC_LINES or time.monotonic() - self._synced_at >= SYNC_SECONDS:
            os.fsync(self._file)
            self._unsynced, self._synced_at = 0, time.monotonic()
        return new

    def read_new(self) -> None:
        """Read what other processes have written."""
        with self._locked():
            self._catch_up()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(
                f"the file system of the journal {self.path} locks no files ({error.strerror}), without which two "
                "processes could write one line; name an --out on a local disk, or mount it with locks."
            ) from None
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        content = b""
        while part := os.pread(self._file, 1 << 24, self._read_bytes + len(content)):
            content += part
        *lines, tail = content.split(b"\n")
        for number, line in enumerate(lines, self._read_lines + 1):
            attempt = parse_attempt(line, f"{self.path}, line {number}")
            self._refuse_mixture(attempt, first=number == 1)
            self._note(attempt)
        self._read_lines += len(lines)
        self._read_bytes += len(content) - len(tail)
        if tail:
            self._repair(tail)

    def _repair(self, tail: bytes) -> None:
        """A kill can only have hurt what follows the last newline: keep it if it is whole, else cut it off."""
        where = f"{self.path}, line {self._read_lines + 1}"
        begun = tail.strip(b"\0")  # a power cut may leave zeros
        try:
            parse_json(tail, nan=True)
        except ValueError:
            if not (begun.startswith(BEGINNING) or BEGINNING.startswith(begun)):  # then no writer of ours left it
                raise UserError(f"{where} is not a line of an annotation journal.") from None
            os.ftruncate(self._file, self._read_bytes)
            self.repaired.append(tail.decode(errors="replace"))
        else:
            parse_attempt(tail, where)
            _write(self._file, b"\n")
            self.repaired.append(tail.decode(errors="replace"))
            self._catch_up()

    def _note(self, attempt: Attempt) -> None:
        self.utterances.add(attempt.utterance)
        self.latest[attempt.key] = attempt
        if attempt.shares:
            self.answered.add(attempt.key)
            self.voted.add(attempt.utterance)
        elif attempt.answers == self._answers and attempt.answered:
            self.answered.add(attempt.key)
        elif attempt.answers == self._answers:
            self.failures[attempt.key] = self.failures.get(attempt.key, 0) + 1
        self.listeners.setdefault(attempt.listener, (attempt.persona, attempt.temperature))

    def _refuse_mixture(self, attempt: Attempt, first: bool) -> None:
        for what, now in self._expected.items():
            begun = getattr(attempt, what)
            if begun != now:
                begun = " ".join(begun.split())[:200]
                raise UserError(
                    f"{self.path} was begun with {what} {begun}, this run has {now}; votes of the two must not mix, so "
                    "name another --out."
                )
        if first and attempt.answers != self._answers and not self._fill:
            raise UserError(
                f"{self.path} was begun with answers {attempt.answers}, this run has {self._answers}; name another "
                "--out, or give --only-missing to ask about the clips alone that have no vote there."
            )


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def read_journal(path: Path) -> list[Attempt]:
    """Every line of a journal; a last line that is not whole is being written, or will be repaired.

    Raises:
        UserError: there is no such file, or a line is not an attempt; the line is named.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"the journal {path} cannot be read ({error.strerror}).") from None
    *lines, tail = content.split(b"\n")
    with contextlib.suppress(ValueError):
        parse_json(tail, nan=True)
        lines.append(tail)
    return [parse_attempt(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def read_votes(journal: Path, classes: Sequence[str]) -> Votes:
    """The answered lines of a journal as votes; see `votes_of`."""
    return votes_of(read_journal(journal), classes, journal)


def votes_of(attempts: Iterable[Attempt], classes: Sequence[str], journal: Path) -> Votes:
    """Answered attempts as votes.

    Args:
        attempts: the lines of a journal, in its order.
        classes: labels that are known.
        journal: how errors name it.

    Returns:
        one vote per label, of weight 1; where a line is a distribution, one per label with its share as the weight.
        Their source is the model, their rater the listener's index.

    Raises:
        UserError: a line is damaged, its label is none of `classes`, or it answers a pair a second time.
    """
    votes: dict[tuple, list[Vote]] = {}
    for number, attempt in enumerate(attempts, 1):
        where = f"{journal}, line {number}"
        if not attempt.shares:
            continue
        for label in attempt.shares:
            if label not in classes:
                raise UserError(
                    f"{where}: the label {reprlib.repr(label)} is none of {', '.join(classes)}."
                    f"{nearest(label, classes)}"
                )
        key = (attempt.model, attempt.prompt, *attempt.key)
        if key in votes:
            raise UserError(
                f"{where}: a second answer of listener {attempt.listener} about "
                f"{reprlib.repr(attempt.utterance)[1:-1]}; delete one."
            )
        votes[key] = [
            Vote(attempt.utterance, label, rater=str(attempt.listener), weight=share, source=attempt.model)
            for label, share in attempt.shares.items()
            if share > 0
        ]
    return Votes(vote for of_pair in votes.values() for vote in of_pair)
