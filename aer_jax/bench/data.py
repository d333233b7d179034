"""Utterances per second per core: aer_jax's input pipeline, and a PyTorch DataLoader doing the paper's work.

Both are processes pinned to the same core with one thread each for what they call, on the same clips with the same
changes drawn for them, and take turns, epoch by epoch.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from aer_jax.base.hub import find_checkpoint
from aer_jax.base.lengths import SAMPLE_RATE
from aer_jax.bench.driver import AER_JAX, BenchWorker, Disagreement, take_turns
from aer_jax.config import Config
from aer_jax.data.audio.read import decode_flac
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.records import RecordReader
from aer_jax.errors import UserError

CLIPS, EPOCHS = 256, 5
TOY = Path(__file__).parents[1] / "demo" / "checkpoint"
MELS = 128  # Qwen2-Audio-7B's
PARTS = {"all": "all", "host": "all but aer_jax's log-mel"}
ONE_CORE = {"JAX_PLATFORMS": "cpu"} | {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def bench_data(config: Config, clips: int = CLIPS, epochs: int = EPOCHS) -> dict[str, Any]:
    """Time both pipelines on training clips of `config.data.dataset`.

    Args:
        config: `data` says how much is augmented, cut and how many batch shapes there are, `train.microbatch` the rows
            of a batch; the tokenizer is `model.checkpoint`'s, the toy checkpoint's where that is "".
        clips: how many clips, drawn from the training split.
        epochs: how often each pipeline goes over them, after one epoch that is not timed.

    Returns:
        parts: part -> {ours, pytorch: {"seconds": [one per epoch], "per_second": utterances in the median epoch,
            "fastest_per_second"}, "ratio": of the medians, "fastest_ratio"}. JAX makes the log-mel spectrogram on this
            core, and on an accelerator where there is one: "host" is aer_jax's work without it, next to all of
            PyTorch's.
        ratio, ratio_without_our_mel: those of "all" and "host".
        heard: what both read, {"clips", "seconds"}.
        prompt_seconds: per clip, to tokenize its prompt, which aer_jax does once per run.

    Raises:
        UserError: there are no training clips, a setting is out of range, or PyTorch is missing.
        Disagreement: the pipelines give different audio.
    """
    dataset = open_dataset(config.data.dataset)
    ids = dataset.splits["train"]
    if not ids:
        raise UserError(f"{dataset.path} has no training clips to time; look at its report.md.")
    drawn = [ids[i] for i in np.random.default_rng(config.seed).permutation(len(ids))[:clips]]
    job = {
        "dataset": str(dataset.path),
        "checkpoint": str(find_checkpoint(config.model.checkpoint or TOY)),
        "ids": drawn,
        "seed": config.seed,
        "data": {name: getattr(config.data, name) for name in ("augment", "max_seconds", "shapes")}
        | {"sampling": "uniform"},
        "batch": config.train.microbatch,
        "mels": MELS,
    }
    answers, (grain, pytorch) = measure(job, dataset, epochs)
    check_same_signals(grain["signals"], pytorch["signals"])
    parts = {part: compare(answers, part, len(drawn)) for part in PARTS}
    return {
        "bench": "data",
        "dataset": str(dataset.path),
        "heard": {"clips": len(drawn), "seconds": sum(samples for _, samples, _ in grain["signals"]) / SAMPLE_RATE},
        "augmented": sum(semitones != 0 or tempo != 1 for _, semitones, tempo, _ in grain["visits"]),
        "batch": config.train.microbatch,
        "epochs": epochs,
        "pytorch_frames": pytorch["frames"],
        "prompt_seconds": grain["prompt_seconds"],
        "parts": parts,
        "ratio": parts["all"]["ratio"],
        "ratio_without_our_mel": parts["host"]["ratio"],
    }


def measure(job: dict[str, Any], dataset: Dataset, epochs: int) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    """What `take_turns` returns."""
    with tempfile.TemporaryDirectory(prefix="aer_jax_bench_") as folder, one_core():
        files = write_wavs(dataset, job["ids"], Path(folder))
        with BenchWorker("grain_data", job, ONE_CORE) as worker:
            theirs = job | {"visits": worker.about["visits"], "files": files}
            return take_turns(
                (worker, [AER_JAX]),
                [(lambda: BenchWorker("pytorch_data", theirs, ONE_CORE), ["pytorch"])],
                lambda worker, way, turn: worker.ask("again"),
                epochs,
                "bench data",
            )


def compare(answers: Mapping[str, Sequence[Mapping[str, float]]], part: str, clips: int) -> dict[str, Any]:
    """Both sides' figures of one part."""
    row: dict[str, Any] = {}
    for side, epochs in answers.items():
        seconds = [epoch[part] for epoch in epochs]
        row[side] = {
            "seconds": seconds,
            "per_second": clips / statistics.median(seconds),
            "fastest_per_second": clips / min(seconds),
        }
    own, pytorch = row[AER_JAX], row["pytorch"]
    return row | {
        "ratio": own["per_second"] / pytorch["per_second"],
        "fastest_ratio": own["fastest_per_second"] / pytorch["fastest_per_second"],
    }


def write_wavs(dataset: Dataset, ids: Sequence[str], folder: Path) -> dict[str, str]:
    """The clips as the corpora ship them: WAV with 16 bits at the source's rate; id -> file."""
    records = RecordReader(sorted(dataset.path.glob("records-*.array_record")))
    files = {}
    for number, id in enumerate(ids):
        utterance = dataset.utterances[id]
        waveform = decode_flac(records.read(utterance.shard, utterance.row).flac)
        files[id] = str(folder / f"{number}.wav")
        soundfile.write(files[id], waveform.samples, waveform.rate, subtype="PCM_16")
    return files


def check_same_signals(some: Sequence[Sequence[Any]], others: Sequence[Sequence[Any]]) -> None:
    """Both must give the same audio: utterance by utterance, to two samples and a hundredth in loudness."""
    for (id, samples, loud), (their_id, their_samples, their_loud) in zip(some, others, strict=True):
        if id != their_id or abs(samples - their_samples) > 2 or abs(loud - their_loud) > 0.01 * their_loud:
            raise Disagreement(f"the pipelines give different audio: {id} and {their_id}; no time is reported.")


@contextmanager
def one_core() -> Iterator[None]:
    """Processes started inside have one core; systems that cannot pin them leave it to the thread counts."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def table(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], str]:
    """Rows and a note of what `bench_data` returned."""
    rows = []
    for part, name in PARTS.items():
        row = result["parts"][part]
        speeds = {
            name: f"{row[side]['per_second']:,.0f}" for side, name in ((AER_JAX, "aer_jax"), ("pytorch", "PyTorch"))
        }
        rows.append({"utterances per second per core": name, **speeds, "ratio": f"{row['ratio']:.1f}"})
    heard, whole = result["heard"], result["parts"]["all"]
    note = (
        f"{heard['clips']} clips of {heard['seconds'] / heard['clips']:.2f} s, {result['augmented']} of them in "
        f"another pitch or tempo, batches of {result['batch']}; median of {result['epochs']} epochs each, in turns; "
        f"ratio of the fastest epochs {whole['fastest_ratio']:.1f}; besides, aer_jax tokenizes every prompt once per "
        f"run: {1e3 * result['prompt_seconds']:.2f} ms per clip"
    )
    return rows, note
