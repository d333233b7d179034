"""Thinning study as a command: a dataset and proxies in; JSON, a Markdown page and figures out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aer_jax.data.dataset import Dataset
from aer_jax.errors import UserError
from aer_jax.evaluation.ambiguity import ambiguity
from aer_jax.evaluation.intervals import not_available
from aer_jax.evaluation.predictions import human_distributions, read_predictions, shares
from aer_jax.evaluation.raters.thinning import PRIOR, thinning
from aer_jax.experiments.figures import levels_figure, raters_figure, reliability_figure
from aer_jax.files import tables
from aer_jax.files.atomic import replace_text
from aer_jax.files.tables import escape, number
from aer_jax.labels.journal import read_votes
from aer_jax.labels.votes import Votes, normalise

Proxy = dict[str, list[float]]
TITLES = {"votes": "human votes alone", PRIOR: "human votes, smoothed"}


def write_raters(
    dataset: Dataset, journals: Mapping[str, Path], predictions: Mapping[str, Path], out: Path, raters: int = 5
) -> dict[str, Any]:
    """Thin the human votes, score them with and without each proxy, and write what came out.

    Args:
        dataset: clips and human votes.
        journals: name -> synthetic votes; all of a clip's are one distribution, and its first vote alone is another.
        predictions: name -> a file with one JSON object per line, `id` and `probs` {class: share}, as `evaluate` and
            `experiment` write it; of a model that did not learn from the speaker.
        out: directory for raters.json, raters.md, raters.svg, reliability.svg and ambiguity.svg.
        raters: largest number of votes after thinning, from 1.

    Returns:
        what raters.json holds, see `thinning.thinning`.

    Raises:
        UserError: a file cannot be read, or there are too few votes.
    """
    proxies: dict[str, Proxy] = {}
    for name, path in journals.items():
        proxies |= journal_proxies(name, path, dataset)
    for name, path in predictions.items():
        proxies[name] = predicted_proxy(path, dataset)
    result = thinning(dataset, proxies, raters)
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "raters.json", json.dumps(result, indent=1) + "\n")
    replace_text(out / "raters.md", markdown(result))
    raters_figure(result, out / "raters.svg")
    reliability_figure(result, out / "reliability.svg")
    levels_figure(ambiguity(human_distributions(dataset, sorted(dataset.utterances))), out / "ambiguity.svg")
    return result


def journal_proxies(name: str, path: Path, dataset: Dataset) -> dict[str, Proxy]:
    """Two proxies from a journal: all votes of a clip, and the first alone."""
    votes = read_votes(path, dataset.classes)
    first = Votes({vote.utterance: vote for vote in reversed(votes)}.values())
    ids = [vote.utterance for vote in first]
    proxies = {}
    for title, some in ((name, votes), (f"one vote of {name}", first)):
        probs_nk = normalise(some.counts(ids, dataset.classes))
        proxies[title] = dict(zip(ids, probs_nk.tolist(), strict=True))
    return proxies


def predicted_proxy(path: Path, dataset: Dataset) -> Proxy:
    """A predictions.jsonl: clip -> shares in the order of the dataset's classes.

    Raises:
        UserError: it cannot be read, or a line has other classes.
    """
    fix = "give a predictions.jsonl that was made on this dataset"
    lines = read_predictions(path, fix)
    for row, line in enumerate(lines, 1):
        if line["probs"].keys() != set(dataset.classes):
            raise UserError(f"{path}, line {row}, is not a prediction for {', '.join(dataset.classes)}; {fix}.")
    probs_nk = shares(lines, "probs", dataset.classes)
    return dict(zip((line["id"] for line in lines), probs_nk.tolist(), strict=True))


def markdown(result: Mapping[str, Any]) -> str:
    """JS by number of raters, and how many each proxy is worth, for each level of ambiguity."""
    raters = range(result["raters"] + 1)
    parts = [
        f"# How many raters a proxy is worth: {escape(result['dataset'])}",
        f"JS (base 2) to the human votes held back, mean of {result['deals']} deals. Smoothed: pooled with the "
        f"{PRIOR}, a constant; with a proxy: pooled with both, at the weights that do best on other speakers. "
        "Worth: how many more human raters, smoothed too, would bring what the proxy brings over its own mean, a "
        "constant in its place; 95% over speakers; 0 where that gain is not significant, >= where all "
        f"{result['raters']} raters bring less.",
    ]
    for level, part in result["levels"].items():
        held = f"{part['votes_held_back']:.1f} votes held back on average"
        parts.append(f"## {level}: {part['n']} clips of {part['n_speakers']} speakers, {held}")
        rows = [["JS", *(f"{m} raters" if m != 1 else "1 rater" for m in raters)]]
        for name, values in part["js"].items():
            numbers = [None, *values] if name == "votes" else values
            rows.append([TITLES.get(name, f"with {name}"), *map(number, numbers)])
        rows += [[f"with the mean of {name}", *map(number, values)] for name, values in part["js_constant"].items()]
        parts.append(tables.markdown(rows))
        if part["worth"]:
            rows = [["worth in raters", "alone", *(f"beside {m}" for m in raters[1:-1])]]
            for name, row in part["worth"].items():
                rows.append([name, *(_worth(row[key], part["n_speakers"]) for key in rows[0][1:])])
            parts.append(tables.markdown(rows))
    return "\n\n".join(parts) + "\n"


def _worth(row: Mapping[str, Any], n_speakers: int) -> str:
    text = f"≥ {row['value']:.0f}" if row["at_least"] else f"{row['value']:.1f}"
    if row["ci"] is None:
        return f"{text} ({not_available(n_speakers)})"
    low, high = row["ci"]
    return f"{text} ({low:.1f} to {'more' if high is None else f'{high:.1f}'})"
