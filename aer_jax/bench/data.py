"""Utterances a second that one core prepares: our input pipeline, and a PyTorch DataLoader doing the paper's work.

Both run as processes of their own, pinned to the same core with one thread each for what they call, on the same clips
with the same changes drawn for them, and take turns, epoch by epoch: a machine that is busy with something else slows
down both alike.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from aer_jax.base.hub import find_checkpoint
from aer_jax.bench.driver import BenchWorker
from aer_jax.config import Config
from aer_jax.data.audio.read import decode_flac
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.records import RecordReader
from aer_jax.errors import UserError

CLIPS, EPOCHS = 256, 5
TOY = Path(__file__).parents[1] / "demo" / "checkpoint"
MELS = 128  # Qwen2-Audio-7B's
PARTS = {
    "decode": "decode",
    "augment": "augment",
    "batch": "prompts, collate",
    "mel": "log-mel",
    "all": "all",
    "host": "all but our log-mel",
}
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
_ALONE = {"JAX_PLATFORMS": "cpu"} | _ONE_THREAD


def bench_data(config: Config, clips: int = CLIPS, epochs: int = EPOCHS) -> dict[str, Any]:
    """Time both pipelines on training clips of `config.data.dataset`.

    Args:
        config: `data` says how much is augmented, cut and how many batch shapes there are, `train.microbatch` the rows
            of a batch; the tokenizer is `model.checkpoint`'s, the toy checkpoint's where that is "".
        clips: how many clips, drawn from the training split.
        epochs: how often each pipeline goes over them, after one epoch that is not timed.

    Returns:
        parts: part -> {ours, pytorch: {"seconds": [one an epoch], "per_second": utterances in the median epoch,
            "fastest_per_second"}, "ratio": of the medians, "fastest_ratio"}. The log-mel spectrogram is made by jax on
            this core; with an accelerator it is made there, and "host" is what is left: our whole stream without it,
            beside PyTorch's with it.
        ratio, ratio_without_our_mel: those of "all" and "host".
        heard: what both heard, {"clips", "seconds"}.
        prompt_seconds: a clip, to tokenize its prompt, which our stream does once a run.

    Raises:
        UserError: there are no training clips, a setting is out of range, or PyTorch is missing.
    """
    dataset = open_dataset(config.data.dataset)
    ids = dataset.splits["train"]
    if not ids:
        raise UserError(f"{dataset.path} has no training clips to time; look at its report.md.")
    drawn = np.random.default_rng(config.seed).permutation(len(ids))[:clips]
    drawn_ids = [ids[i] for i in drawn]
    job = {
        "dataset": str(dataset.path),
        "checkpoint": str(find_checkpoint(config.model.checkpoint or TOY)),
        "ids": drawn_ids,
        "seed": config.seed,
        "augment": config.data.augment,
        "max_seconds": config.data.max_seconds,
        "shapes": config.data.shapes,
        "batch": config.train.microbatch,
        "mels": MELS,
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aer_jax_bench_")))
        files = write_wavs(dataset, drawn_ids, folder)
        stack.enter_context(one_core())
        ours = stack.enter_context(BenchWorker("grain_data", job, _ALONE))
        pytorch = stack.enter_context(
            BenchWorker("pytorch_data", job | {"visits": ours.about["visits"], "files": files}, _ALONE)
        )
        seconds: dict[str, list[dict[str, float]]] = {"ours": [], "pytorch": []}
        for _ in tqdm(range(epochs), "bench data", unit="epoch", delay=2):
            seconds["ours"].append(ours.ask("again"))
            seconds["pytorch"].append(pytorch.ask("again"))
    refuse_different(ours.about["heard"], pytorch.about["heard"])
    for epoch in seconds["pytorch"]:
        epoch["host"] = epoch["all"]
    parts = {part: compare(seconds, part, len(drawn)) for part in PARTS}
    return {
        "dataset": str(dataset.path),
        "heard": {"clips": len(drawn), "seconds": sum(samples for _, samples, _ in ours.about["heard"]) / 16_000},
        "augmented": sum(semitones != 0 or tempo != 1 for _, semitones, tempo, _ in ours.about["visits"]),
        "batch": job["batch"],
        "epochs": epochs,
        "pytorch_frames": pytorch.about["frames"],
        "prompt_seconds": ours.about["prompt_seconds"],
        "parts": parts,
        "ratio": parts["all"]["ratio"],
        "ratio_without_our_mel": parts["host"]["ratio"],
    }


def table(result: dict[str, Any]) -> str:
    """What `bench_data` returned, for people."""
    lines = [f"{'utterances a second on one core':<32}{'ours':>10}{'PyTorch':>10}{'ratio':>8}"]
    for part, name in PARTS.items():
        if part == "augment" and not result["augmented"]:
            continue
        row = result["parts"][part]
        lines.append(
            f"{name:<32}{row['ours']['per_second']:>10,.0f}{row['pytorch']['per_second']:>10,.0f}{row['ratio']:>8.1f}"
        )
    heard, whole = result["heard"], result["parts"]["all"]
    fastest = [whole[side]["fastest_per_second"] for side in ("ours", "pytorch")]
    return "\n".join(
        [
            *lines,
            f"{heard['clips']} clips of {heard['seconds'] / heard['clips']:.2f} s, {result['augmented']} of them in "
            f"another pitch or tempo, batches of {result['batch']}; median of {result['epochs']} epochs each, in turns",
            f"the fastest epochs: {fastest[0]:,.0f} and {fastest[1]:,.0f} a second, ratio {whole['fastest_ratio']:.1f}",
            f"beside this, ours tokenizes every prompt once a run: {1e3 * result['prompt_seconds']:.2f} ms a clip",
        ]
    )


def compare(seconds: dict[str, list[dict[str, float]]], part: str, clips: int) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {}
    for side, epochs in seconds.items():
        taken = [epoch[part] for epoch in epochs]
        median, least = max(statistics.median(taken), 1e-9), max(min(taken), 1e-9)  # 0 where nothing is augmented
        row[side] = {"seconds": taken, "per_second": clips / median, "fastest_per_second": clips / least}
    ours, pytorch = row["ours"], row["pytorch"]
    return row | {
        "ratio": ours["per_second"] / pytorch["per_second"],
        "fastest_ratio": ours["fastest_per_second"] / pytorch["fastest_per_second"],
    }


def write_wavs(dataset: Dataset, ids: list[str], folder: Path) -> dict[str, str]:
    """The clips as the corpora ship them: WAV with 16 bits at the source's rate; id -> file."""
    records = RecordReader(sorted(dataset.path.glob("records-*.array_record")))
    files = {}
    for number, id in enumerate(ids):
        utterance = dataset.utterances[id]
        waveform = decode_flac(records.read(utterance.shard, utterance.row).flac)
        files[id] = str(folder / f"{number}.wav")
        soundfile.write(files[id], waveform.samples, waveform.rate, subtype="PCM_16")
    return files


def refuse_different(ours: list[list[Any]], theirs: list[list[Any]]) -> None:
    """Both must have heard the same: utterance by utterance, to two samples and a hundredth in loudness."""
    for (id, samples, loud), (their_id, their_samples, their_loud) in zip(ours, theirs, strict=True):
        if id != their_id or abs(samples - their_samples) > 2 or abs(loud - their_loud) > 0.01 * their_loud:
            raise RuntimeError(f"the pipelines heard different things: {id} and {their_id}")


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
