"""What a dataset holds and what was left out, for a colleague to read; ids and numbers only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aer_jax.data.audio import SILENT_PEAK
from aer_jax.data.dataset import Utterance
from aer_jax.labels.votes import Vote, count_votes, normalise

_NAMED = 5


@dataclass(frozen=True)
class Kept:
    """What the report is about: `found` clips of which `utterances` were kept; `dropped` is reason -> ids."""

    corpus: str
    classes: tuple[str, ...]
    found: int
    utterances: Sequence[Utterance]
    votes: Sequence[Vote]
    splits: dict[str, list[str]]
    how: str
    scaled: Sequence[str]
    dropped: dict[str, list[str]]


def data_report(kept: Kept) -> str:
    """`report.md` as text."""
    ids = [u.id for u in kept.utterances]
    counts_nk = count_votes(kept.votes, ids, kept.classes)
    p_nk = normalise(counts_nk)
    # Shannon entropy over its largest value: 0 all agree, 1 every class alike.
    entropy_n = np.sum(p_nk * np.log(1 / np.where(p_nk > 0, p_nk, 1)), axis=1) / np.log(len(kept.classes))
    unanimous = np.mean(counts_nk.max(axis=1) == counts_nk.sum(axis=1))
    seconds_n = np.array([u.seconds for u in kept.utterances])
    raters_n = np.array(list(Counter(vote.utterance for vote in kept.votes if vote.weight > 0).values()))
    speakers = {u.id: u.speaker for u in kept.utterances}

    lines = [
        f"# Data report: {kept.corpus}",
        "",
        f"{kept.found:,} clips found, **{len(ids):,} kept**, {len(set(speakers.values())):,} speakers, "
        f"{len(kept.votes):,} votes, {seconds_n.sum() / 60:,.1f} minutes.",
        "",
        "## Votes",
        "",
        *_table(("class", "votes", "share", "clips where it leads"), _votes_by_class(kept.classes, counts_nk)),
        "",
        *_votes_outside(kept),
        "## Clips",
        "",
        *_table(
            ("", "mean", "minimum", "quartile", "median", "quartile", "maximum"),
            [
                ("votes a clip, all labels", *_summary(raters_n, ".1f")),
                ("ambiguity (entropy / log K, 0 to 1)", *_summary(entropy_n, ".3f")),
                ("seconds", *_summary(seconds_n, ".2f")),
            ],
        ),
        "",
        f"All votes of a clip agree in {unanimous:.1%} of the clips.",
        "",
        "## Splits",
        "",
        f"Chosen {kept.how}; no speaker is in two of them.",
        "",
        *_table(
            ("split", "clips", "speakers", "which"),
            [
                (part, f"{len(part_ids):,}", f"{len(names):,}", _some(names, 12))
                for part, part_ids in kept.splits.items()
                if (names := sorted({speakers[id] for id in part_ids}))
            ],
        ),
        "",
        "## Left out",
        "",
        *_left_out(kept.dropped),
        "",
        f"A clip is silent when its peak stays below {SILENT_PEAK:g} of full scale. "
        "Channels are averaged to one. "
        f"{len(kept.scaled):,} clip(s) exceeded full scale and were scaled down, not clipped"
        + (f": {_some(kept.scaled)}." if kept.scaled else "."),
    ]
    return "\n".join(lines) + "\n"


def _votes_by_class(classes: Sequence[str], counts_nk: np.ndarray) -> list[tuple[str, ...]]:
    votes_k, total = counts_nk.sum(axis=0), counts_nk.sum()
    leads_nk = counts_nk == counts_nk.max(axis=1, keepdims=True)
    alone_k = (leads_nk & (leads_nk.sum(axis=1, keepdims=True) == 1)).sum(axis=0)
    rows = [
        (label, f"{votes:,.6g}" if votes % 1 else f"{votes:,.0f}", f"{votes / total:.1%}", f"{alone:,}")
        for label, votes, alone in zip(classes, votes_k, alone_k, strict=True)
    ]
    return [*rows, ("(tied)", "", "", f"{len(counts_nk) - alone_k.sum():,}")]


def _votes_outside(kept: Kept) -> list[str]:
    outside: Counter[str] = Counter()
    for vote in kept.votes:
        if vote.label not in kept.classes:
            outside[vote.label] += vote.weight
    if not outside:
        return []
    named = ", ".join(f"{label} {weight:,.6g}" for label, weight in outside.most_common())
    return [f"Votes outside the classes, kept in `votes.jsonl` but not counted: {named}.", ""]


def _left_out(dropped: dict[str, list[str]]) -> list[str]:
    if not dropped:
        return ["Nothing."]
    rows = [(reason, f"{len(what):,}", _some(what)) for reason, what in dropped.items()]
    return _table(("reason", "how many", "first"), rows)


def _some(names: Sequence[str], most: int = _NAMED) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _summary(values_n: np.ndarray, form: str) -> list[str]:
    return [format(v, form) for v in (values_n.mean(), *np.quantile(values_n, (0, 0.25, 0.5, 0.75, 1)))]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), line(["---"] * len(header)), *(line(row) for row in rows)]
