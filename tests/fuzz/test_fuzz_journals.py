"""Damaged journals, read as training, `proxies quality` and `annotate` read them."""

import json
import random
import shutil

import mutations
import numpy as np
import pytest

from aer_jax.config import LabelsConfig
from aer_jax.corpora.toy import corpus as toy
from aer_jax.data.preparation.prepare import prepare
from aer_jax.evaluation.raters.quality import quality
from aer_jax.labels.attempts import Attempt
from aer_jax.labels.journal import Journal, read_journal
from aer_jax.training.targets import Targets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepare(toy.generate(clips=18, speakers=6), tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def lines(dataset) -> list[dict]:
    rng, attempts = random.Random(0), []
    for n, id in enumerate(dataset.utterances):
        for listener in range(3):
            values = {"label": rng.choice(dataset.classes)} if (n + listener) % 7 else {"outcome": "unparsed"}
            if listener == 2:
                values = {"probs": dict.fromkeys(dataset.classes, 1 / len(dataset.classes)), "answers": "exact"}
            values |= {"persona": "Go by\u2028tone.", "temperature": 0.5 + listener, "seed": n}
            attempts.append(Attempt(id, listener, prompt="p", model="m", response="Sie klingt é", **values))
    return [json.loads(attempt.line()) for attempt in attempts]


def write(lines: list[dict]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def damaged(lines: list[dict], seed: int) -> tuple[str, bytes]:
    rng = random.Random(seed)
    whole = write(lines)
    if seed % 3 == 0:
        n = rng.randrange(len(lines))
        way, line = mutations.change_value(lines[n], rng)
        return way, write(lines[:n]) + line + b"\n" + write(lines[n + 1 :])
    return ("flip", mutations.flip(whole, rng)) if seed % 3 == 1 else mutations.damage(whole, rng)


def test_journals(dataset, lines, seeds, tally, tmp_path):
    """A line has no checksum: a changed letter of a name passes where the name is known, and all other lines stay."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(write(lines))
    truth, ids = read_journal(path), dataset.splits["train"]

    def learn():
        labels = LabelsConfig(source="combined", journal=str(path))
        settled, _ = Targets(dataset, labels).settle_missing()
        return read_journal(path), Targets(settled, labels).distributions(ids)

    def judge(way, result) -> str | None:
        attempts, shares_nk = result
        if not np.isfinite(shares_nk).all() or not np.allclose(shares_nk.sum(axis=1), 1) or (shares_nk < 0).any():
            return f"shares {shares_nk}"
        if way == "flip":
            # The last line is being written while its end is missing.
            if len(attempts) not in (len(truth), len(truth) - (attempts == truth[:-1])):
                return f"{len(attempts)} lines instead of {len(truth)}"
            if sum(a != b for a, b in zip(attempts, truth, strict=False)) > 1:
                return "several lines changed"
        return "" if attempts == truth else None

    for seed in seeds(3000):
        way, data = damaged(lines, seed)
        path.write_bytes(data)
        tally.record(f"seed {seed}, {way}", learn, lambda result, way=way: judge(way, result), str(path))


def test_journals_in_quality(dataset, lines, seeds, tally, tmp_path):
    path = tmp_path / "journal.jsonl"
    for seed in seeds(100):
        way, data = damaged(lines, seed)
        path.write_bytes(data)
        tally.record(
            f"seed {seed}, {way}",
            lambda: quality(dataset, path),
            lambda found: (
                None if 0 <= found["js"] <= 1 and found["utterances"] <= len(dataset.utterances) else str(found)
            ),
        )


def test_journals_that_are_continued(lines, seeds, tally, tmp_path):
    """Whole lines that a journal holds are never lost by opening it to write."""
    whole, path, copy = write(lines), tmp_path / "journal.jsonl", tmp_path / "copy.jsonl"
    more = Attempt("new", 0, "Go by tone.", 0.5, 1, "p", "m", "sad", "sad")

    def go_on():
        shutil.copy(path, copy)
        with Journal(path, "m", "p", "free") as journal:
            journal.append([more])
        return read_journal(copy), read_journal(path)

    def judge(result) -> str | None:
        before, after = result
        return None if after in ([*before, more], [*before[:-1], more]) else "lines were lost"

    for seed in seeds(1500):
        way, data = damaged(lines, seed)
        path.write_bytes(data)
        tally.record(f"seed {seed}, {way}", go_on, judge, str(path))
        left = path.read_bytes()
        kept = data.rpartition(b"\n")[0]
        if not left.startswith(kept):
            tally.record(f"seed {seed}, {way}", lambda: None, lambda _: "whole lines were cut off")
    assert whole
