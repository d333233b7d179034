"""Quality of a journal as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aer_jax.evaluation.baselines import BASELINES
from aer_jax.evaluation.intervals import NOT_AVAILABLE
from aer_jax.files import tables
from aer_jax.files.tables import number

_WAYS = {
    "human": "human votes alone",
    "synthetic": "synthetic votes alone",
    "counts": "counts (the paper's)",
    "fixed": "a fixed weight",
    "learned": "a learned weight",
    "constant": "control: a constant, learned weight",
}
SPEAKERS = 12  # rows of a grouping that are printed; the JSON has all


def text(quality: dict[str, Any]) -> str:
    """The result of `quality.quality` in lines."""
    return "\n".join(line for part in _parts(quality) for line in [*part, ""]).rstrip()


def _parts(quality: dict[str, Any]) -> Iterable[list[str]]:
    yield _head(quality)
    yield _agreement(quality)
    yield _alpha(quality["alpha"])
    yield _by_ambiguity(quality["by_ambiguity"])
    yield from _factors(quality)
    yield _classes(quality)
    yield _groups(quality["groups"], quality["classes"])
    yield _saturation(quality)
    yield _pooling(quality["pooling"])


def _head(quality: dict[str, Any]) -> list[str]:
    return [
        f"{quality['dataset']}: {quality['utterances']} utterances of {quality['speakers']} speakers, "
        f"{quality['listeners']} synthetic listeners ({quality['model']}, {quality['answers']} answers)",
        f"{quality['asked']} questions: {quality['unparsed_share']:.1%} unparsed, {quality['failed_share']:.1%} "
        f"failed; votes per utterance: {quality['votes']['synthetic']:.1f} synthetic, "
        f"{quality['votes']['human']:.1f} human",
        "References are the human votes; JS in base 2, lower is better; [ ] are 95% intervals over speakers "
        f"({NOT_AVAILABLE}).",
    ]


def _agreement(quality: dict[str, Any]) -> list[str]:
    rows = [("synthetic votes", quality)]
    if quality["exact"]:
        rows.append(("exact proxy", quality["exact"]))
    rows += [
        (baseline.label, quality["baselines"][key])
        for key, baseline in BASELINES.items()
        if key in quality["baselines"]
    ]
    head = ["", "JS", "", "JS distance", "BC", *(f"r {name}" for name in quality["classes"])]
    body = [
        [name, number(row["js"]), _interval(row["ci"]["js"]), number(row["js_distance"]), number(row["bc"]),
         *(number(row["correlation"][k], 2) for k in quality["classes"])]
        for name, row in rows
    ]  # fmt: skip
    lines = _table("agreement with people (r: correlation of an emotion's share over utterances)", head, body)
    chance = f"{quality['js_shuffled']:.3f} (permutation test: p = {quality['p_shuffled']:.3f})"
    lines.append(f"Shuffled over utterances the same votes have a JS of {chance}.")
    if quality["exact"] and quality["exact"]["differs"]:
        lines.append(
            f"The exact proxy is not these votes' limit: it differs in {', '.join(quality['exact']['differs'])}."
        )
    return lines


def _alpha(rows: dict[str, dict]) -> list[str]:
    names = {"human": "people", "synthetic": "synthetic listeners", "human_synthetic": "one of each"}
    body = [[name, number(rows[key]["value"]), _interval(rows[key]["ci"])] for key, name in names.items()]
    return _table("Krippendorff's alpha (1 full agreement, 0 chance)", ["", "alpha", ""], body)


def _by_ambiguity(rows: dict[str, dict]) -> list[str]:
    compared = ("uniform", "best_constant", "split_half")
    head = ["", "clips", "JS", "", *(BASELINES[key].label for key in compared)]
    body = [
        [f"{name} ({row['from']:.2f} to {row['to']:.2f})", str(row["n"]),
         number(row["js"]), _interval(row["ci"]["js"]),
         *(number(row["baselines"][key]["js"]) for key in compared)]
        for name, row in rows.items()
    ]  # fmt: skip
    return _table("JS by ambiguity of the human votes (entropy over log K)", head, body)


def _factors(quality: dict[str, Any]) -> Iterable[list[str]]:
    if not quality["crossed"]:
        yield ["Not every persona occurs with every temperature, so the next two tables do not tell them apart."]
    for name, what in (("persona", "by_persona"), ("temperature", "by_temperature")):
        head = [name, "listeners", "votes", "unparsed", "JS", "BC", "alpha", "", *quality["classes"]]
        body = [
            [_short(str(row[name])), str(row["listeners"]), f"{row['votes']:.1f}", f"{row['unparsed_share']:.1%}",
             number(row["js"]), number(row["bc"]), number(row["alpha"]), _interval(row["alpha_ci"]),
             *(f"{row['labels'][k]:.0%}" if row["labels"] else "-" for k in quality["classes"])]
            for row in quality[what]
        ]  # fmt: skip
        yield _table(f"by {name} (alpha: one of its votes and one of a person's; shares of its votes)", head, body)


def _classes(quality: dict[str, Any]) -> list[str]:
    head = ["", "human", "synthetic", "difference", ""]
    body = [
        [name, f"{row['human']:.1%}", f"{row['synthetic']:.1%}", f"{row['bias']:+.1%}", _interval(row["ci"], "+.1%")]
        for name, row in quality["by_class"].items()
    ]
    return _table("which labels are used too often (mean shares)", head, body)


def _groups(groups: dict[str, Any], classes: Sequence[str]) -> list[str]:
    rows = list(groups["rows"].items())
    head = [groups["attribute"], "speakers", "clips", "JS", "", *classes]
    body = [
        [name, str(row["n_speakers"]), str(row["n"]), number(row["js"]), _interval(row["js_ci"]),
         *(f"{row['bias'][k]:+.1%}" for k in classes)]
        for name, row in rows[:SPEAKERS]
    ]  # fmt: skip
    lines = _table(f"synthetic minus human shares by {groups['attribute']}", head, body)
    if len(rows) > SPEAKERS:
        lines.append(f"  and {len(rows) - SPEAKERS} more in the JSON")
    if len(rows) == 2 and rows[0][1]["gap_ci"][classes[0]]:
        (one, row), (other, _) = rows
        gaps = (f"{k} {row['gap'][k]:+.1%} {_interval(row['gap_ci'][k], '+.1%')}" for k in classes)
        lines.append(f"{one} less {other}: {', '.join(gaps)}")
    return lines


def _saturation(quality: dict[str, Any]) -> list[str]:
    curve = quality["saturation"]
    shown = sorted({*range(min(5, len(curve["js"]))), *range(4, len(curve["js"]), 5), len(curve["js"]) - 1})
    head = ["votes", *(str(m + 1) for m in shown)]
    body = [
        ["JS", *(number(curve["js"][m]) for m in shown)],
        ["", *(_interval(curve["ci"][m]) for m in shown)],
    ]
    lines = _table(f"JS against the number of votes, {curve['n_utterances']} utterances that have them all", head, body)
    if fit := curve["inverse"]:
        there = f"90% of the gain at N = {fit['n_gain']:.1f}" if fit["n_gain"] else "no gain"
        lines.append(
            f"a + b / N, from N = 3 on: a {fit['a']:.4f} {_interval(fit['ci']['a'], '.4f')}, b {fit['b']:.4f}, "
            f"rmse {fit['rmse']:.4f}; {there}"
        )
    if limit := curve["exact"]:
        if limit["js"] is None:
            lines.append(f"The exact journal lacks {limit['missing']} of these utterances, so it is no limit here.")
        else:
            there = f"at N = {limit['n_gain']:.1f}" if limit["n_gain"] else "not reached"
            lines.append(
                f"exact proxy, infinitely many votes: {limit['js']:.4f} {_interval(limit['ci'], '.4f')}; "
                f"90% of the gain to it {there}"
            )
    return lines


def _pooling(pooled: dict[str, Any]) -> list[str]:
    if pooled["reason"]:
        return [f"pooling: nothing to say, {pooled['reason']}"]
    head = ["", "weight", "loss", "", "better by", ""]
    body = []
    for key, name in _WAYS.items():
        row = pooled["rows"][key]
        weight = "synthetic only" if row["weight"] is None else f"{row['weight']:.3g}"
        body.append(
            [name, weight, number(row["loss"], 4), _interval(row["ci"]), f"{row['better']:+.4f}",
             _interval(row["better_ci"], "+.4f")]
        )  # fmt: skip
    title = (
        f"pooling: Brier score of held-out human votes, {pooled['n']} utterances; weights were learned on "
        f"{pooled['learned_on']} others, of the validation split"
    )
    return _table(title, head, body)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [title, *(f"  {line}" for line in tables.text([head, *rows]).split("\n"))]


def _interval(ci: Sequence[float] | None, form: str = ".3f") -> str:
    return f"[{ci[0]:{form}}, {ci[1]:{form}}]" if ci else "n/a"


def _short(words: str) -> str:
    return words if len(words) <= 40 else words[:39] + "…"
