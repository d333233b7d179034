"""Data report: what a dataset holds and what was left out; ids and numbers only, never audio or words."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aer_jax.data.audio.read import SILENT_PEAK
from aer_jax.data.dataset import Utterance
from aer_jax.data.preparation.data_figures import bars, columns, histogram, nice_step
from aer_jax.files import tables
from aer_jax.files.tables import escape
from aer_jax.labels.votes import Votes, normalise

_NAMED = 5
_STYLE_OF = {"train": "a", "validation": "b", "test": "c"}


@dataclass(frozen=True)
class Kept:
    """Content of the report.

    Attributes:
        corpus: its name.
        classes: in order.
        found: clips in the corpus, of which `utterances` were kept.
        utterances: in record order.
        votes: of the utterances, also those outside the classes.
        splits: split -> ids.
        how: how they were chosen, in words.
        shared_speakers: how many speakers are in more than one split.
        speakers_apart: False where that was asked for.
        scaled: ids of clips that exceeded full scale.
        dropped: reason -> ids or rows.
        settings: every choice by name.
        notes: what the reader has to say.
        licensed: True where the licence forbids passing audio or text on.
        speed: how fast it was prepared, in words.
    """

    corpus: str
    classes: tuple[str, ...]
    found: int
    utterances: Sequence[Utterance]
    votes: Votes
    splits: dict[str, list[str]]
    how: str
    shared_speakers: int
    speakers_apart: bool
    scaled: Sequence[str]
    dropped: dict[str, list[str]]
    settings: dict[str, Any]
    notes: Sequence[str]
    licensed: bool
    speed: str


def write_report(folder: Path, kept: Kept) -> None:
    """Write `report.md`, its figures in `report/`, and `report/dropped.jsonl` with all that was left out."""
    numbers = _Numbers.of(kept)
    (folder / "report").mkdir(exist_ok=True)
    figures = _figures(kept, numbers)
    for name, (_, svg) in figures.items():
        (folder / "report" / name).write_text(svg, "utf-8", "backslashreplace")
    with (folder / "report" / "dropped.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as file:
        for reason, what in kept.dropped.items():
            for one in what:
                file.write(json.dumps({"reason": reason, "what": one}, ensure_ascii=False) + "\n")
    (folder / "report.md").write_text(
        _report(kept, numbers, {name: what for name, (what, _) in figures.items()}), "utf-8", "backslashreplace"
    )


@dataclass(frozen=True)
class _Numbers:
    """Counts [clips, classes], ambiguity and seconds [clips] in record order; raters of the clips that tell them."""

    counts_nk: np.ndarray
    entropy_n: np.ndarray
    raters_n: np.ndarray
    seconds_n: np.ndarray
    speaker_of: dict[str, str]

    @classmethod
    def of(cls, kept: Kept) -> _Numbers:
        ids = [u.id for u in kept.utterances]
        counts_nk = kept.votes.counts(ids, kept.classes)
        p_nk = normalise(counts_nk)
        # Shannon entropy over its largest value: 0 all agree, 1 every class alike.
        entropy_n = np.sum(p_nk * np.log(1 / np.where(p_nk > 0, p_nk, 1)), axis=1) / np.log(len(kept.classes))
        # A rater who named two labels is one rater; votes without a name are a rater each.
        answers = {
            (v.utterance, v.rater if v.rater is not None else i) for i, v in enumerate(kept.votes) if v.weight > 0
        }
        raters = Counter(utterance for utterance, _ in answers)
        of_shares = {v.utterance for v in kept.votes if v.rater is None and v.weight % 1}
        if of_shares:  # then a lone vote without a rater is a share of 1
            nameless = {v.utterance for v in kept.votes if v.rater is None}
            of_shares |= {id for id in nameless if raters[id] == 1}
        return cls(
            counts_nk,
            entropy_n,
            np.array([raters[id] for id in ids if id not in of_shares], int),
            np.array([u.seconds for u in kept.utterances]),
            {u.id: u.speaker for u in kept.utterances},
        )


def _figures(kept: Kept, numbers: _Numbers) -> dict[str, tuple[str, str]]:
    votes_k, total = numbers.counts_nk.sum(axis=0), numbers.counts_nk.sum()
    rows = [(label, v, f"{_number(v)} ({v / total:.1%})", "a") for label, v in zip(kept.classes, votes_k, strict=True)]
    rows += [(label, w, f"{_number(w)}, outside", "off") for label, w in _outside(kept)[:12]]
    most, longest = int(numbers.raters_n.max(initial=1)), float(numbers.seconds_n.max())
    second = nice_step(longest, 40)
    clips_of = Counter(numbers.speaker_of.values())
    part_of = {numbers.speaker_of[id]: part for part, ids in kept.splits.items() for id in ids}
    style_of = {name: _STYLE_OF[part_of[name]] if kept.speakers_apart else "off" for name in clips_of}
    legend = [(style, part) for part, style in _STYLE_OF.items()] if kept.speakers_apart else [("off", "any split")]
    return {
        "votes.svg": ("Votes by label", bars("Votes by label", rows)),
        "ambiguity.svg": (
            "Ambiguity of the clips",
            histogram(
                "Ambiguity: entropy of the votes / log K", numbers.entropy_n, "all agree … evenly divided", _TWENTIETHS
            ),
        ),
        "raters.svg": (
            "Raters per clip",
            histogram("Raters per clip", numbers.raters_n, "raters", np.arange(0.5, most + 1, max(1, most // 60))),
        ),
        "durations.svg": (
            "Durations",
            histogram("Durations", numbers.seconds_n, "seconds", np.arange(0, longest + second, second)),
        ),
        "speakers.svg": (
            "Clips per speaker",
            columns(
                "Clips per speaker",
                [(n, style_of[name]) for name, n in clips_of.items()],
                f"{len(clips_of):,} speakers",
                legend,
            ),
        ),
    }


_TWENTIETHS = np.arange(21) / 20


def _report(kept: Kept, numbers: _Numbers, captions: dict[str, str]) -> str:
    counts_nk, seconds_n = numbers.counts_nk, numbers.seconds_n
    unanimous = np.mean(counts_nk.max(axis=1) == counts_nk.sum(axis=1))
    speakers = numbers.speaker_of
    clips_of = Counter(speakers.values())
    apart = "no speaker is in two of them" if kept.speakers_apart else _shared(kept)
    figures = {name: f"![{what}](report/{name})" for name, what in captions.items()}
    lines = [
        f"# Data report: {escape(kept.corpus)}",
        "",
        f"{kept.found:,} clips found, **{len(speakers):,} kept**, {len(clips_of):,} speakers, "
        f"{len(kept.votes):,} votes, {seconds_n.sum() / 60:,.1f} minutes.",
        "",
        *(["**Licensed**: the audio, the words and the votes must not be passed on.", ""] if kept.licensed else []),
        *(line for note in kept.notes for line in (escape(note), "")),
        "## Choices",
        "",
        *_table(("choice", "value"), [(name.replace("_", " "), _said(v)) for name, v in kept.settings.items()]),
        "",
        "## Votes",
        "",
        figures["votes.svg"],
        "",
        *_table(("class", "votes", "share", "clips where it leads"), _votes_by_class(kept.classes, counts_nk)),
        "",
        *_votes_outside(kept),
        "## Clips",
        "",
        " ".join(figures[name] for name in ("ambiguity.svg", "raters.svg", "durations.svg")),
        "",
        *_clips(numbers, clips_of),
        "",
        f"All votes of a clip agree in {unanimous:.1%} of the clips.",
        "",
        "## Splits",
        "",
        f"Chosen {escape(kept.how)}; {apart}.",
        "",
        figures["speakers.svg"],
        "",
        *_table(("split", "clips", "minutes", *kept.classes, "speakers", "which"), _splits(kept, numbers)),
        "",
        "## Left out",
        "",
        *_left_out(kept.dropped),
        "",
        "A clip is silent when, clicks of under 20 ms aside, nothing leaves its median by "
        f"{SILENT_PEAK:g} of full scale. "
        "Channels are averaged to one. "
        f"{len(kept.scaled):,} clip(s) exceeded full scale and were scaled down, not clipped"
        + (f": {escape(_some(kept.scaled))}." if kept.scaled else "."),
        "",
        kept.speed,
    ]
    return "\n".join(lines) + "\n"


def _clips(numbers: _Numbers, clips_of: Counter[str]) -> list[str]:
    raters = _summary(numbers.raters_n, ".1f") if len(numbers.raters_n) else ["unknown"] * 6
    rows = [
        ("raters per clip", *raters),
        ("ambiguity (entropy / log K, 0 to 1)", *_summary(numbers.entropy_n, ".3f")),
        ("seconds", *_summary(numbers.seconds_n, ".2f")),
        ("clips per speaker", *_summary(np.array(list(clips_of.values())), ".1f")),
    ]
    return _table(("", "mean", "minimum", "quartile", "median", "quartile", "maximum"), rows)


def _shared(kept: Kept) -> str:
    return (
        f"**{kept.shared_speakers:,} speakers are in more than one of them**, so the test says how well voices that "
        "were heard in training are judged, not how well those of other speakers are"
    )


def _splits(kept: Kept, numbers: _Numbers) -> list[tuple[str, ...]]:
    row_of = {u.id: i for i, u in enumerate(kept.utterances)}
    rows = []
    for part, ids in kept.splits.items():
        at = [row_of[id] for id in ids]
        names = sorted({numbers.speaker_of[id] for id in ids})
        mean_k = normalise(numbers.counts_nk[at]).mean(axis=0)
        minutes = numbers.seconds_n[at].sum() / 60
        shares = [f"{share:.1%}" for share in mean_k]
        rows.append((part, f"{len(ids):,}", f"{minutes:,.1f}", *shares, f"{len(names):,}", _some(names, 12)))
    return rows


def _votes_by_class(classes: Sequence[str], counts_nk: np.ndarray) -> list[tuple[str, ...]]:
    votes_k, total = counts_nk.sum(axis=0), counts_nk.sum()
    leads_nk = counts_nk == counts_nk.max(axis=1, keepdims=True)
    alone_k = (leads_nk & (leads_nk.sum(axis=1, keepdims=True) == 1)).sum(axis=0)
    rows = [
        (label, _number(votes), f"{votes / total:.1%}", f"{alone:,}")
        for label, votes, alone in zip(classes, votes_k, alone_k, strict=True)
    ]
    return [*rows, ("(tied)", "", "", f"{len(counts_nk) - alone_k.sum():,}")]


def _outside(kept: Kept) -> list[tuple[str, float]]:
    outside: defaultdict[str, float] = defaultdict(float)
    for vote in kept.votes:
        if vote.label not in kept.classes:
            outside[vote.label] += vote.weight
    return sorted(outside.items(), key=lambda item: -item[1])


def _votes_outside(kept: Kept) -> list[str]:
    outside = _outside(kept)
    if not outside:
        return []
    named = ", ".join(f"{label} {weight:,.6g}" for label, weight in outside)
    return [f"Votes outside the classes, kept in `votes.jsonl` but not counted: {escape(named)}.", ""]


def _left_out(dropped: dict[str, list[str]]) -> list[str]:
    if not dropped:
        return ["Nothing."]
    rows = [(reason, f"{len(what):,}", _some(what, between="; ")) for reason, what in dropped.items()]
    return [*_table(("reason", "how many", "first"), rows), "", "All of them are in `report/dropped.jsonl`."]


def _said(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _number(votes: float) -> str:
    return f"{votes:,.0f}" if abs(votes - round(votes)) < 1e-6 else f"{votes:,.1f}"


def _some(names: Sequence[str], most: int = _NAMED, between: str = ", ") -> str:
    return between.join(names[:most]) + (f"{between}..." if len(names) > most else "")


def _summary(values_n: np.ndarray, form: str) -> list[str]:
    return [format(v, form) for v in (values_n.mean(), *np.quantile(values_n, (0, 0.25, 0.5, 0.75, 1)))]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return tables.markdown([header, *rows], left=len(header)).split("\n")
