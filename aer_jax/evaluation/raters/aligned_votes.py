"""Human and synthetic votes about the same utterances, as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.labels.journal import Attempt, read_journal, votes_of
from aer_jax.labels.votes import Vote, Votes, normalise


@dataclass(frozen=True)
class AlignedVotes:
    """Human votes and a journal's, on the utterances that have both.

    Attributes:
        classes: K labels.
        ids, speakers_n: N utterances and who speaks in each.
        counts_nk: human votes, weighted.
        whole_nk: whole human votes, int; a vote that was shared between labels is left aside.
        votes_nlk: the vote of each of L listeners: one-hot, shares that sum to 1 (an exact proxy), or zero where
            there is none.
        listeners: one attempt per listener; they agree in persona and temperature.
        outcomes: of each listener, how many pairs ended with a vote (None), "unparsed" and "failed".
        origin: model and prompt of the journal.
        answers: "free", "constrained" or "exact", see `Attempt`; of a journal that has several, each with its
            number, for instance "128 free + 32 exact".
    """

    classes: tuple[str, ...]
    ids: list[str]
    speakers_n: np.ndarray
    counts_nk: np.ndarray
    whole_nk: np.ndarray
    votes_nlk: np.ndarray
    listeners: list[Attempt]
    outcomes: list[Counter[str | None]]
    origin: tuple[str, str]
    answers: str

    @property
    def human_nk(self) -> np.ndarray:
        """Human distributions."""
        return normalise(self.counts_nk)

    @property
    def synthetic_nk(self) -> np.ndarray:
        """Synthetic distributions, all listeners pooled."""
        return normalise(self.votes_nlk.sum(axis=1))


def align_votes(dataset: Dataset, journal: Path) -> AlignedVotes:
    """Read a journal that was made about a dataset.

    Raises:
        UserError: the journal is damaged, empty, is about other utterances, holds several models or prompts, or
            fewer than two utterances have both human and synthetic votes.
    """
    attempts = read_journal(journal)
    latest = _latest(attempts, dataset, journal)
    first = {attempt.listener: attempt for attempt in latest}
    listeners = [first[index] for index in sorted(first)]
    row = {person.listener: i for i, person in enumerate(listeners)}
    outcomes: list[Counter[str | None]] = [Counter() for _ in listeners]
    for attempt in latest:
        outcomes[row[attempt.listener]][attempt.outcome] += 1

    asked = {attempt.utterance for attempt in latest}
    ids = [id for id in dataset.utterances if id in asked]
    by_listener: list[list[Vote]] = [[] for _ in listeners]
    for vote in votes_of(attempts, dataset.classes, journal):
        by_listener[row[int(str(vote.rater))]].append(vote)
    votes_nlk = np.stack([Votes(votes).counts(ids, dataset.classes) for votes in by_listener], axis=1)
    human = dataset.votes.human
    counts_nk = human.counts(ids, dataset.classes)
    both = np.flatnonzero((counts_nk.sum(axis=1) > 0) & (votes_nlk.sum(axis=(1, 2)) > 0))
    if len(both) < 2:
        raise UserError(
            f"{len(both)} utterances have both human and synthetic votes; at least 2 are needed to compare them."
        )
    ids = [ids[n] for n in both]
    return AlignedVotes(
        dataset.classes,
        ids,
        np.array([dataset.utterances[id].speaker for id in ids]),
        counts_nk[both],
        human.whole.counts(ids, dataset.classes).astype(np.int64),
        votes_nlk[both],
        listeners,
        outcomes,
        (latest[0].model, latest[0].prompt),
        _kinds(latest),
    )


def _kinds(attempts: list[Attempt]) -> str:
    counts = Counter(attempt.answers for attempt in attempts)
    return next(iter(counts)) if len(counts) == 1 else " + ".join(f"{n} {kind}" for kind, n in counts.most_common())


def _latest(lines: Sequence[Attempt], dataset: Dataset, journal: Path) -> list[Attempt]:
    """The last attempt per utterance and listener; refuses another dataset's journal."""
    attempts = {attempt.key: attempt for attempt in lines}
    if not attempts:
        raise UserError(f"the journal {journal} is empty; `aer-jax annotate` fills it.")
    foreign = [id for id, _ in attempts if id not in dataset.utterances]
    if foreign:
        raise UserError(
            f"{journal} is about {len(foreign)} utterances that {dataset.path} does not hold, the first is "
            f'"{foreign[0]}"; give the dataset that was annotated.'
        )
    origins = {(attempt.model, attempt.prompt) for attempt in attempts.values()}
    if len(origins) > 1:
        raise UserError(f"{journal} mixes models or prompts: {', '.join(sorted(map(' '.join, origins)))}.")
    return list(attempts.values())
