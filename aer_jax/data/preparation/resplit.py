"""Another split of prepared clips: a dataset directory that shares the shards of an existing one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from aer_jax.corpora.base import Corpus
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.preparation.splits import parse_rule, split_clips
from aer_jax.errors import UserError
from aer_jax.files.atomic import whole_directory
from aer_jax.files.content_hash import file_sha256, seal

_SHARED = ("*.array_record", "utterances.jsonl", "votes.jsonl")


def resplit(dataset: Dataset, corpus: Corpus, out: str | Path, split: str, seed: int = 0) -> Dataset:
    """Write a dataset directory as `prepare` would with another `--split`, without encoding any audio.

    Shards, utterances and votes are hard links to those of `dataset`, copies where the file system has no links;
    `splits.json` and `dataset.json` are its own; there is no `report.md`.

    Args:
        dataset: prepared from `corpus`.
        corpus: as it was read then.
        out: the directory to make.
        split: as `aer_jax.data.preparation.splits.parse_rule` reads it.
        seed: of what the split draws.

    Raises:
        UserError: `out` is taken, the split cannot be made, or it would leave out clips that `dataset` holds.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists already; remove it or choose another place.")
    rule = parse_rule(split, corpus.clips)
    clips = [clip for clip in corpus.clips if clip.id in dataset.utterances]
    left_out = [clip.id for clip in clips if rule.leaves_out(clip)]
    if left_out or len(clips) < len(dataset.utterances):
        raise UserError(f"the split {split} is not over the clips of {dataset.path}; prepare it by itself.")
    splits, how = split_clips(clips, seed, rule)
    with whole_directory(out) as partial:
        for file in [file for pattern in _SHARED for file in dataset.path.glob(pattern)]:
            try:
                os.link(file, partial / file.name)
            except OSError:
                shutil.copyfile(file, partial / file.name)
        _write(
            partial / "splits.json", {"seed": seed, "how": how, "speakers_apart": rule.keeps_speakers_apart, **splits}
        )
        about = json.loads((dataset.path / "dataset.json").read_text(encoding="utf-8"))
        about["settings"] |= {"seed": seed, "split": split}
        about["sha256"]["splits.json"] = file_sha256(partial / "splits.json")
        _write(partial / "dataset.json", seal(about))
    return open_dataset(out)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
