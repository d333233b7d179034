"""The `votes` and `distribution` of one manifest line."""

from __future__ import annotations

from typing import Any

from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

# Each count becomes that many votes; more listeners than this is a slip of the keyboard.
_MOST_VOTES = 10_000
_SUM_TOLERANCE = 0.01


def split_cell(cell: str, name: str, where: str) -> list[str] | dict[str, float]:
    """A CSV cell in the form that JSONL would have: `a;b` as a list, `a:2;b:1` as label -> number."""
    items = [item.strip() for item in cell.split(";")]
    if not any(":" in item for item in items):
        if name == "distribution":
            raise UserError(f'{where}: the distribution "{cell}" names no shares; write angry:0.7;neutral:0.3.')
        return items
    numbers: dict[str, float] = {}
    for item in items:
        label, colon, number = (part.strip() for part in item.rpartition(":"))
        if not colon:
            raise UserError(f'{where}: "{item}" in {name} has no number, others have; write label:number everywhere.')
        if label in numbers:
            raise UserError(f'{where}: {name} names "{label}" twice.')
        try:
            numbers[label] = int(number) if number.lstrip("+-").isdecimal() else float(number)
        except ValueError:
            raise UserError(f'{where}: "{number}" in {name} is not a number.') from None
    return numbers


def read_votes(id: str, votes: Any, where: str) -> tuple[Vote, ...]:
    """One Vote a listener from a list of labels, a list of {"rater", "label"}, or {label: count}."""
    if isinstance(votes, list):
        return tuple(_vote(id, vote, where) for vote in votes)
    if not isinstance(votes, dict):
        raise UserError(f"{where}: votes must be a list of labels or {{label: count}}, not {votes!r}.")
    for label, count in votes.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise UserError(
                f'{where}: the count of "{label}" is {count!r}, not a whole number of at least 0; '
                "shares belong into distribution."
            )
    if sum(votes.values()) > _MOST_VOTES:
        raise UserError(f"{where}: more than {_MOST_VOTES} votes for one clip; is a count wrong?")
    return tuple(Vote(id, _label(label, where)) for label, count in votes.items() for _ in range(count))


def read_distribution(id: str, shares: Any, where: str) -> tuple[Vote, ...]:
    """One Vote a label, weighted by its share; the shares sum to 1."""
    if not isinstance(shares, dict):
        raise UserError(f"{where}: distribution must be {{label: share}}, not {shares!r}.")
    for label, share in shares.items():
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0 <= share <= 1 + _SUM_TOLERANCE:
            raise UserError(f'{where}: the share of "{label}" is {share!r}, not from 0 to 1; counts belong into votes.')
    total = sum(shares.values())
    if abs(total - 1) > _SUM_TOLERANCE:
        raise UserError(f"{where}: the distribution sums to {total:.6g}, not 1; counts belong into votes.")
    return tuple(Vote(id, _label(label, where), weight=share / total) for label, share in shares.items() if share)


def _vote(id: str, vote: Any, where: str) -> Vote:
    if not isinstance(vote, dict):
        return Vote(id, _label(vote, where))
    if "label" not in vote or vote.keys() - {"rater", "label"}:
        raise UserError(f'{where}: a vote is {{"rater": ..., "label": ...}}, not {vote!r}.')
    rater = vote.get("rater")
    return Vote(id, _label(vote["label"], where), None if rater is None else str(rater))


def _label(label: Any, where: str) -> str:
    if not isinstance(label, str) or not label.strip():
        raise UserError(f"{where}: {label!r} is no label; a label is text that is not empty.")
    return label.strip()
