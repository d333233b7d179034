"""The main job on the embedded default: every command of the README in a row, on speech that the package makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from aer_jax.annotation.annotate import sample_votes
from aer_jax.config import load_config
from aer_jax.corpora import read_corpus
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.evaluation.raters.quality import quality
from aer_jax.inference.evaluate_run import evaluate_run
from aer_jax.reports.pages.report import write_report
from aer_jax.reports.votes_figure import write_quality
from aer_jax.training.trainer import train

HERE = Path(__file__).parent
CHECKPOINT = HERE / "checkpoint"
LISTENERS = 8
EPOCHS = 8
ARMS = ("human", "synthetic", "combined")


def demo(out: Path, *, listeners: int = LISTENERS, epochs: int = EPOCHS) -> tuple[list[Path], Path]:
    """prepare -> annotate -> train on human, synthetic and combined votes -> evaluate -> report.

    What an earlier call finished is kept, so an interrupted demo goes on where it stopped.

    Args:
        out: directory for everything that is written.
        listeners: synthetic ones an utterance.
        epochs: at most, an arm.

    Returns:
        the runs, evaluated, and the report.
    """
    data, journal, page = out / "dataset", out / "journal.jsonl", out / "report.html"

    say("1/5 prepare: the toy corpus, its speech synthesized and its listeners simulated")
    dataset = open_dataset(data) if data.exists() else prepare(read_corpus("toy", None), data)

    say(f"2/5 annotate: {listeners} synthetic listeners in a PyTorch process")
    sample_votes(dataset, CHECKPOINT, journal, listeners=listeners, batch=8 * listeners)
    agreement = quality(dataset, journal)
    write_quality(out / "proxies", agreement)
    say(
        f"synthetic against human votes: JS {agreement['js']:.3f}, shuffled over clips "
        f"{agreement['js_shuffled']:.3f} (permutation p = {agreement['p_shuffled']:.3f}), "
        f"{agreement['unparsed_share']:.1%} of the answers unparsed"
    )

    say("3/5 train: the same model on human, on synthetic and on combined votes, with DiME-Aug")
    runs = [out / arm for arm in ARMS]
    for arm, path in zip(ARMS, runs, strict=True):
        settings = {
            "out": path,
            "data.dataset": data,
            "model.checkpoint": CHECKPOINT,
            "labels.source": arm,
            "labels.journal": journal,
        }
        overrides = [f"{key}={json.dumps(str(value))}" for key, value in settings.items()]
        config = load_config(HERE / "demo.yaml", [*overrides, f"train.epochs={epochs}"])
        say(f"{arm} votes")
        train(config, resume=(path / "config.yaml").exists())

    say("4/5 evaluate: on the human votes of speakers that no arm has heard")
    for path in runs:
        evaluate_run(path)

    say("5/5 report")
    write_report(runs, page, proxies=out / "proxies")
    return runs, page


def say(text: str) -> None:
    """A heading between the progress bars."""
    print(f"\n{text}", file=sys.stderr, flush=True)
