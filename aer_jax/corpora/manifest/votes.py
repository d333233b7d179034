"""The votes of one manifest line: a cell or JSON value, columns of counts or shares, or a column for each rater."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml

from aer_jax.corpora.label_names import LabelNames, is_missing
from aer_jax.corpora.text import parse_json, shown
from aer_jax.errors import UserError
from aer_jax.labels.votes import Vote

# Each count becomes that many votes; more listeners than this is a slip of the keyboard.
_MOST_VOTES = 10_000
_SUM_TOLERANCE = 0.01
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_PYTHON = re.compile(r"[\w.]*(?:Counter|set|[dD]ict|list|array|Series)\(.*\)", re.DOTALL)  # their repr
_ADVICE = {"votes": "write happy;sad or angry:2;sad:1", "distribution": "write angry:0.7;neutral:0.3"}
_SEPARATORS = ";|\n"


def read_votes(id: str, votes: Any, names: LabelNames, where: str) -> tuple[Vote, ...]:
    """One Vote per listener.

    Args:
        id: of the clip.
        votes: `a;b` or `a:2;b:1` as text, a list of labels or of {"rater", "label"}, or {label: count}.
        names: what labels are called.
        where: where it stands.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(votes, str):
        votes, _ = _parse(votes, "votes", names, where)
    elif isinstance(votes, int | float) and not isinstance(votes, bool):
        votes = [votes]
    if isinstance(votes, list):
        return tuple(vote for one in votes if (vote := _vote(id, one, names, where)))
    if not isinstance(votes, dict):
        raise UserError(f"{where}: votes must be a list of labels or {{label: count}}, not {shown(votes)}.")
    counts = {label: _count(label, count, where) for label, count in votes.items() if count is not None}
    if sum(counts.values()) > _MOST_VOTES:
        raise UserError(f"{where}: more than {_MOST_VOTES} votes for one clip; is a count wrong?")
    named = ((_label(label, names, where), count) for label, count in counts.items() if count)
    return tuple(Vote(id, label) for label, count in named if label for _ in range(count))


def read_distribution(id: str, shares: Any, names: LabelNames, where: str) -> tuple[Vote, ...]:
    """One Vote per label, weighted by its share of `a:0.7;b:0.3` or {label: share}.

    The sum may leave 1 by what rounding each share to the places shown explains.
    """
    places = 0
    if isinstance(shares, str):
        shares, places = _parse(shares, "distribution", names, where)
        if shares == []:
            return ()
    if not isinstance(shares, dict):
        raise UserError(f"{where}: distribution must be {{label: share}}, not {shown(shares)}.")
    if shares and all(share is None for share in shares.values()):
        return ()
    shares = {label: share for label, share in shares.items() if share is not None}
    total = _total(shares, where)
    places = places or max((_places(share) for share in shares.values()), default=0)
    rounding = len(shares) * 0.5 * 10.0**-places if places else 0.0
    # Halves are rounded up, so all shares may be half a unit too high, but never all of them half a unit too low.
    explained = abs(total - 1) <= _SUM_TOLERANCE + 1e-9 or 1 - rounding + 1e-9 < total <= 1 + rounding + 1e-9
    if not shares or not explained:
        raise UserError(f"{where}: the distribution sums to {total:.6g}, not 1; counts belong in votes.")
    named = [(_label(label, names, where), share) for label, share in shares.items() if share]
    known = sum(share for label, share in named if label)
    return tuple(Vote(id, label, weight=share / known) for label, share in named if label)


def read_raters(id: str, labels: Mapping[str, Any], names: LabelNames, where: str) -> tuple[Vote, ...]:
    """One Vote per rater; `labels` maps raters to the label that each gave, without those who gave none."""
    votes: list[Vote] = []
    for rater, label in labels.items():
        known = _label(label, names, where)
        votes += [Vote(id, known, rater)] if known else []
    return tuple(votes)


def read_number(value: Any, name: str, where: str) -> Any:
    """A cell of a column of counts or shares as a number; other text is left for the reader to refuse."""
    if isinstance(value, str):
        return None if is_missing(value) else _number(value, name, where)
    return value


def _total(shares: Mapping[str, Any], where: str) -> float:
    numbers = [share for share in shares.values() if isinstance(share, int | float) and not isinstance(share, bool)]
    percent = len(numbers) == len(shares) and abs(sum(map(float, filter(_small, numbers))) - 100) <= 1
    for label, share in shares.items():
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0 <= share <= 1 + _SUM_TOLERANCE:
            advice = "divide percent by 100" if percent else "counts belong in votes"
            raise UserError(f'{where}: the share of "{label}" is {shown(share)}, not from 0 to 1; {advice}.')
    return sum(shares.values())


def _small(number: float) -> bool:
    return -1e6 < number < 1e6


def _places(share: float) -> int:
    exponent = Decimal(repr(share)).as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0


def _count(label: str, count: Any, where: str) -> int:
    whole = isinstance(count, int | float) and not isinstance(count, bool) and count == count and count >= 0
    if not whole or count > 1e15 or count != int(count):
        raise UserError(
            f'{where}: the count of "{label}" is {shown(count)}, not a whole number of at least 0; '
            "shares belong in distribution, or in columns that --map shares=A+B names."
        )
    return int(count)


def _vote(id: str, vote: Any, names: LabelNames, where: str) -> Vote | None:
    rater = None
    if isinstance(vote, dict):
        if "label" not in vote or vote.keys() - {"rater", "label"}:
            raise UserError(f'{where}: a vote is {{"rater": ..., "label": ...}}, not {shown(vote)}.')
        rater, vote = vote.get("rater"), vote["label"]
    label = _label(vote, names, where)
    return Vote(id, label, None if rater is None or is_missing(str(rater)) else str(rater)) if label else None


def _label(label: Any, names: LabelNames, where: str) -> str | None:
    if label is None or (isinstance(label, float) and label != label):
        label = ""
    if isinstance(label, int | float) and not isinstance(label, bool):
        number = str(label).removesuffix(".0")
        label = number if names.knows(number) else label
    if not isinstance(label, str):
        raise UserError(f"{where}: {shown(label)} is no label; a label is text, or a number that --labels names.")
    return names.of(label, where)


def _parse(cell: str, name: str, names: LabelNames, where: str) -> tuple[Any, int]:
    """A cell in the form that JSON would have, and the decimal places that its numbers show."""
    text = cell.strip()
    if names.knows(text):
        return [text], 0
    if is_missing(text):
        names.of(text, where)
        return [], 0
    if text[0] in "[({":
        return _bracketed(text, name, where)
    if _PYTHON.fullmatch(text):
        raise UserError(f"{where}: {name} is {shown(text)}, as Python prints it; {_ADVICE[name]}.")
    signs = [sign for sign in _SEPARATORS if sign in text]
    if len(signs) > 1:
        raise UserError(f'{where}: "{text[:80]}" in {name} mixes separators; write happy;sad or angry:2;sad:1.')
    # A comma before a digit is a decimal comma, or no separator of labels.
    items = text.split(signs[0]) if signs else re.split(r",(?!\s*\d)", text)
    items = [item.strip() for item in items]
    if any(":" in item for item in items):
        pairs = [tuple(part.strip() for part in item.rpartition(":")) for item in items if item]
        return _numbers(((label, colon, number) for label, colon, number in pairs), name, where)
    if name == "distribution":
        raise UserError(f'{where}: the distribution "{cell[:80]}" names no shares; write angry:0.7;neutral:0.3.')
    return items, 0


def _bracketed(text: str, name: str, where: str) -> tuple[Any, int]:
    """A list or mapping as JSON, Python or YAML write it."""
    try:
        value = parse_json(text, where)
    except UserError:
        value = None
    if isinstance(value, list | dict):
        return value, 0
    if text[0] == "(" and text[-1] == ")":
        text = f"[{text[1:-1]}]"
    try:
        node = yaml.compose(text, yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        node = None
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return [item.value for item in node.value], 0
    if text[0] == "{" and isinstance(node, yaml.MappingNode) and node.value and not any(v.value for _, v in node.value):
        raise UserError(f"{where}: {name} is {shown(text)}, a set without numbers; {_ADVICE[name]}.")
    if isinstance(node, yaml.MappingNode):
        pairs = [pair for pair in node.value if all(isinstance(part, yaml.ScalarNode) for part in pair)]
        if len(pairs) == len(node.value):
            return _numbers(((label.value, ":", number.value) for label, number in pairs), name, where)
    raise UserError(f'{where}: {name} is {shown(text)}, which cannot be read; write happy;sad or ["happy", "sad"].')


def _numbers(pairs: Iterable[Sequence[str]], name: str, where: str) -> tuple[dict[str, float], int]:
    numbers: dict[str, float] = {}
    places = 0
    for label, colon, number in pairs:
        if not colon:
            raise UserError(f'{where}: "{number}" in {name} has no number, others have; write label:number everywhere.')
        if label in numbers:
            raise UserError(f'{where}: {name} names "{label}" twice.')
        numbers[label] = _number(number, name, where)
        places = max(places, len(re.sub(r"^.*[.,]|^[^.,]*$|%$", "", number.strip())) + 2 * number.endswith("%"))
    return numbers, places


def _number(text: str, name: str, where: str) -> float:
    text = text.strip()
    share = name in ("distribution", "shares")  # below 1, so a comma separates no thousands
    plain, percent = (text.removesuffix("%").strip(), text.endswith("%")) if share else (text, False)
    plain = plain.replace(",", ".") if share and _DECIMAL_COMMA.fullmatch(plain) else plain
    try:
        if plain.lstrip("+-").isdecimal() and not percent:
            return int(plain)
        return float(plain) / (100 if percent else 1)
    except ValueError:
        raise UserError(f'{where}: "{text[:80]}" in {name} is not a number.') from None
