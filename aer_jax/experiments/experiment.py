"""Experiment from a corpus on disk to its tables; finished parts are kept."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aer_jax.config import to_yaml
from aer_jax.corpora import read_corpus
from aer_jax.data.dataset import Dataset, open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.data.preparation.resplit import resplit
from aer_jax.errors import Unfinished, UserError
from aer_jax.evaluation.predictions import write_predictions
from aer_jax.experiments.report_text import findings, markdown
from aer_jax.experiments.results import results
from aer_jax.experiments.settings import Arm, Experiment, Trial, trials
from aer_jax.experiments.test_set import pool
from aer_jax.experiments.trials import MARK, is_finished, refuse_other_settings, run_trials
from aer_jax.files.atomic import plain, replace_text
from aer_jax.files.json_text import parse_json
from aer_jax.training.check import check
from aer_jax.training.signals import stop_signals

ANNOTATE = (sys.executable, "-m", "aer_jax.experiments.worker", "annotate")
RESULT, PAGE, SETTINGS = "experiment.json", "tables.md", "experiment.yaml"


class SomeFailed(UserError):
    """The tables are there, but runs are missing from them."""

    exit_code = 1


def run_experiment(experiment: Experiment) -> dict[str, Any]:
    """Prepare the splits, annotate, train and evaluate all runs, and write the tables.

    Written into `experiment.out`: `data/SPLIT` (datasets that share their shards), `journal.jsonl`, `configs/`, `logs/`
    and `runs/` with one entry a run, `predictions/` with a file an arm (all test clips, mean over seeds), `tables.md`,
    `experiment.json` and `experiment.yaml`.

    Returns:
        what experiment.json holds; an arm is in it when all its runs are finished. `failed` names the others' runs.

    Raises:
        UserError: something is missing or does not fit, or no arm is finished.
        Unfinished: it was stopped; the same call goes on.
    """
    grid = trials(experiment)
    refuse_unset(experiment, grid)
    out = Path(experiment.out)
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        refuse_other_settings(grid)
        datasets = prepare_splits(experiment)
        test_set = pool(datasets)
        get_proxies(experiment, test_set.dataset, grid[0].config.model.dtype)
        failed = run_trials(experiment, grid)
        complete = finished_arms(grid)
        if not complete:
            raise UserError(
                f"no arm is finished, so there is no table: {len(failed)} of {len(grid)} runs failed, "
                f"{_first(failed, out)}; fix it and give the same command again."
            )
        numbers, pooled = results(test_set, complete)
        result = plain(numbers)
        result = {"name": out.name, "failed": failed} | result | {"runs": {trial.name: _run(trial) for trial in grid}}
        result["findings"] = findings(result)
        for name, probs_nk in pooled.items():
            file, speakers = out / "predictions" / f"{name}.jsonl", test_set.speakers_n.tolist()
            write_predictions(file, test_set.ids, speakers, test_set.dataset.classes, probs_nk)
        replace_text(out / SETTINGS, to_yaml(experiment))
        replace_text(out / RESULT, json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        replace_text(out / PAGE, markdown(result, f"Experiment {out.name}"))
    return result


def refuse_unset(experiment: Experiment, grid: Sequence[Trial]) -> None:
    """Refuse errors that would end every run, before anything is written.

    Raises:
        UserError: the corpus' place or the base checkpoint is not set, or settings of a run do not fit each other.
    """
    needed = {"settings.model.checkpoint": all(trial.config.model.checkpoint for trial in grid)}
    needed["corpus.root"] = bool(experiment.corpus.root) or experiment.corpus.name == "toy"
    for key, there in needed.items():
        if not there:
            raise UserError(f"{key} is not set; add it to the experiment's file or as {key}=... on the command line.")
    for trial in grid:
        check(trial.config)


def refuse_failures(result: dict[str, Any], out: str) -> None:
    """Raise where runs failed, after the tables have been shown.

    Raises:
        SomeFailed: some did.
    """
    if failed := result["failed"]:
        raise SomeFailed(
            f"{len(failed)} of {len(result['runs'])} runs failed, {_first(failed, Path(out))}; their arms are left "
            "out of the tables. Fix it and give the same command again: what is finished is kept."
        )


def finished_arms(grid: list[Trial]) -> dict[Arm, dict[int, list[Trial]]]:
    """The arms all of whose runs are finished: arm -> seed -> runs in the order of the splits."""
    by_arm: dict[Arm, dict[int, list[Trial]]] = {}
    for trial in grid:
        by_arm.setdefault(trial.arm, {}).setdefault(trial.seed, []).append(trial)
    return {
        arm: seeds for arm, seeds in by_arm.items() if all(is_finished(trial) for of in seeds.values() for trial in of)
    }


def prepare_splits(experiment: Experiment) -> dict[str, Dataset]:
    """split -> dataset. The first is prepared from the corpus, the others share its shards.

    Raises:
        UserError: the corpus cannot be read, or a dataset is there that was prepared otherwise.
    """
    source = experiment.corpus
    datasets: dict[str, Dataset] = {}
    corpus = None
    for split in experiment.splits:
        path = experiment.data(split)
        if not (path / "dataset.json").exists():
            if corpus is None:
                names = ("excited", "multi_label", "improvised", "audio", "map", "labels")
                choices = {name: getattr(source, name) for name in names}
                corpus = read_corpus(source.name, source.root, source.classes or None, source.lenient, **choices)
            if datasets:
                resplit(next(iter(datasets.values())), corpus, path, split, source.seed)
            else:
                print(f"preparing {source.name}", file=sys.stderr)
                prepare(corpus, path, source.classes or None, source.seed, split, source.outside)
        datasets[split] = _as_wanted(path, split, experiment)
    return datasets


def _as_wanted(path: Path, split: str, experiment: Experiment) -> Dataset:
    dataset = open_dataset(path)
    about = json.loads((path / "dataset.json").read_text("utf-8"))
    source = dataclasses.asdict(experiment.corpus)
    has = about["settings"] | {"name": about["corpus"], "classes": tuple(about["classes"])}
    wanted = {key: source[key] for key in ("name", "seed", "outside", "lenient")} | {"split": split}
    wanted |= {key: source[key] for key in ("classes", "excited", "multi_label", "map", "labels") if source[key]}
    for key, value in wanted.items():
        if has.get(key) != value:
            raise UserError(
                f"{path} was prepared with {key} {has.get(key)!r}, not {value!r}; remove it or name another out."
            )
    return dataset


def get_proxies(experiment: Experiment, dataset: Dataset, dtype: str) -> None:
    """Annotate where an arm needs synthetic votes; an existing journal is continued.

    Args:
        experiment: whose `proxies` say which model is asked.
        dataset: all utterances.
        dtype: of the annotating model, where it is asked in JAX.

    Raises:
        UserError: there is neither a journal nor a model to ask, or asking it failed.
        Unfinished: Ctrl-C or SIGTERM; the same call goes on.
    """
    if set(experiment.labels) == {"human"}:
        return
    source = experiment.proxies
    if source.model:
        where = [str(dataset.path), source.model, str(experiment.journal)]
        _annotate([*where, str(source.listeners), source.answers, dtype])
    elif not experiment.journal.is_file():
        raise UserError(
            f"there is no journal {experiment.journal}, and synthetic votes are to be learned from; set proxies.model "
            "to a checkpoint that annotates, proxies.journal to what `aer-jax annotate` wrote, or labels=[human]."
        )


def _annotate(arguments: list[str]) -> None:
    """Annotate in a separate process, which frees the devices for the trials."""
    with stop_signals() as stop:
        process = subprocess.Popen([*ANNOTATE, *arguments], stdout=2, close_fds=False)  # it holds the lock, too
        while process.poll() is None and not stop.wait(0.2):
            pass
        if stop.is_set():
            process.terminate()
        code = process.wait()
    if stop.is_set():
        raise Unfinished("stopped as asked, with synthetic votes still to ask for; the same command goes on.")
    if code:
        raise UserError(
            f"the synthetic votes are not complete: the annotation ended with exit code {code} and said why above. "
            "Fix it and give the same command again: what was answered is kept."
        )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One experiment at a time; trials inherit the lock, so one left over from a killed process holds it, too."""
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another experiment, or a run that it left behind, is writing to {out}; wait for it or end it."
            ) from None
        os.set_inheritable(lock.fileno(), True)
        yield


def _first(failed: dict[str, str], out: Path) -> str:
    name, why = next(iter(failed.items()))
    return f"the first is {name} ({why.rstrip('.')}; see {out / 'logs' / name}.log)"


def _run(trial: Trial) -> dict[str, Any]:
    done = Path(trial.config.out) / MARK
    try:
        seconds = parse_json(done.read_bytes())["seconds"] if done.is_file() else None
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{done} is damaged; remove it, and the same call evaluates that run again.") from None
    return {"run": trial.config.out, "finished": done.is_file(), "seconds": seconds}
