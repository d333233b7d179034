"""Damaged tables: what is read is what the undamaged one says, but for the cell that the damage hit."""

import csv
import io
import json
import random
import zlib

import mutations
import numpy as np
import pandas as pd
import soundfile

from aer_jax.corpora import read_corpus
from aer_jax.corpora.base import UNREADABLE
from aer_jax.corpora.label_names import is_missing
from aer_jax.data.preparation.prepare import prepare

FIELDS = ("id", "audio", "speaker", "votes", "transcript", "split", "start", "end")
ROWS = [
    {
        "id": f"c{i}", "audio": f"{i}.wav", "speaker": f"s{i % 3}",
        "votes": ["angry;sad", "sad", "happy;happy;sad"][i % 3],
        "transcript": ["Well, yes.", 'He said "no"', "Größe\u2028two"][i % 3], "split": ["train", "dev", "test"][i % 3],
        "start": 0.1 * i, "end": 1.5 + 0.1 * i,
    }
    for i in range(6)
]  # fmt: skip


def text(delimiter: str) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return buffer.getvalue().encode()


def workbook(write: str) -> bytes:
    buffer = io.BytesIO()
    getattr(pd.DataFrame(ROWS), write)(buffer, index=False)
    return buffer.getvalue()


def tables() -> dict[str, bytes]:
    return {
        "comma.csv": text(","),
        "semicolon.csv": text(";"),
        "m.tsv": text("\t"),
        "m.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
        "m.json": json.dumps(ROWS, indent=1).encode(),
        "m.xlsx": workbook("to_excel"),
        "m.parquet": workbook("to_parquet"),
    }


def fields(clip) -> tuple:
    votes = tuple((vote.label, vote.weight, vote.rater) for vote in clip.votes)
    return clip.id, clip.audio, clip.speaker, votes, clip.transcript, clip.split, clip.start, clip.end


def judge(name: str, way: str, truth, corpus) -> str | None:
    ids = [clip.id for clip in corpus.clips]
    if len(set(ids)) < len(ids):
        return "an id twice"
    if odd := [x for x in corpus.labels if is_missing(x) or set(x) & set(',;|/[]{}"#\t\n\u2028')]:
        return f"the label {odd[0]!r}"
    for clip in corpus.clips:
        if not clip.id or not clip.speaker or not all(0 < vote.weight <= 1 for vote in clip.votes):
            return f"the clip {clip}"
        if not 0 <= (clip.start or 0) < (np.inf if clip.end is None else clip.end):
            return f"{clip.id} from {clip.start} to {clip.end}"
    now, before = [fields(clip) for clip in corpus.clips], [fields(clip) for clip in truth.clips]
    if now == before:
        return ""
    if way == "flip" and len(now) != len(before) and UNREADABLE not in corpus.dropped:
        return f"{len(now)} clips"
    if way == "flip" and not corpus.dropped and not corpus.notes and not name.endswith(".parquet"):
        # A name of a column that is no name any more is said; a cell belongs to one clip.
        changed = [
            (a, b) for one, other in zip(now, before, strict=True) for a, b in zip(one, other, strict=True) if a != b
        ]
        if len(changed) > 1:
            return f"{len(changed)} changes, the first from {changed[0][1]!r} to {changed[0][0]!r}"
    if name.endswith(".xlsx") and way == "flip":
        return f"another result in spite of ZIP's checksums: {now}"
    return None


def test_manifests(seeds, tally, tmp_path):
    for name, whole in tables().items():
        path = tmp_path / name
        path.write_bytes(whole)
        truth = read_corpus("manifest", path)
        assert len(truth.clips) == len(ROWS)
        for seed in seeds(300 if name.endswith((".xlsx", ".parquet")) else 1500):
            rng = random.Random(zlib.crc32(f"{name} {seed}".encode()))
            if name == "m.json" and seed % 2:
                way, data = mutations.change_value(ROWS, rng)
            else:
                way, data = ("flip", mutations.flip(whole, rng)) if seed % 3 else mutations.damage(whole, rng)
            path.write_bytes(data)
            lenient = rng.random() < 0.3
            tally.record(
                f"{name}, seed {seed}, {way}",
                lambda path=path, lenient=lenient: read_corpus("manifest", path, lenient=lenient),
                lambda corpus, name=name, way=way, truth=truth: judge(name, way, truth, corpus),
                str(path),
            )


def test_prepare(seeds, tally, tmp_path, capsys):
    """From the table to the dataset directory: whatever is read of a damaged table can be prepared, or is refused."""
    for i in range(6):
        tone = 0.3 * np.sin(np.arange(32_000) * (0.05 + 0.01 * i))
        soundfile.write(tmp_path / f"{i}.wav", tone, 16_000)
    whole, path = text(","), tmp_path / "m.csv"
    for seed in seeds(200):
        rng = random.Random(seed)
        way, data = mutations.damage(whole, rng)
        path.write_bytes(data)
        tally.record(
            f"seed {seed}, {way}",
            lambda seed=seed: prepare(read_corpus("manifest", path, lenient=True), tmp_path / f"out{seed}"),
            lambda dataset: (
                None if all(len(dataset.audio(id)) for id in dataset.utterances) else "a clip without audio"
            ),
        )
