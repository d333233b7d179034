"""Trials: the runs of an experiment, one process each, as many at a time as the accelerators allow.

A run is an ordinary run directory, `OUT/runs/NAME`, from an ordinary config, `OUT/configs/NAME.yaml`; what it prints
goes to `OUT/logs/NAME.log`. `cell.json` in it says that it was trained and evaluated to the end.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tqdm import tqdm

from aer_jax.config import to_yaml
from aer_jax.devices import accelerators, shares
from aer_jax.errors import Unfinished
from aer_jax.experiments.settings import Experiment, Trial
from aer_jax.files.atomic import replace_text
from aer_jax.training.run import holds_run, read_run, refuse_changed
from aer_jax.training.signals import stop_signals

COMMAND = (sys.executable, "-m", "aer_jax.experiments.worker", "trial")  # and a config file and a run directory
MARK = "cell.json"


def is_finished(trial: Trial) -> bool:
    """Whether a run was trained and evaluated."""
    return (Path(trial.config.out) / MARK).is_file()


def refuse_other_settings(trials: Sequence[Trial]) -> None:
    """Refuse an experiment some of whose runs were begun with other settings, data, votes or base.

    Raises:
        UserError: the first such run and the difference; nothing has been done then.
    """
    for trial in trials:
        if is_finished(trial) or holds_run(trial.config):
            refuse_changed(read_run(trial.config.out), trial.config)


def run_trials(experiment: Experiment, trials: Sequence[Trial]) -> dict[str, str]:
    """Train and evaluate all unfinished runs, resuming those that have begun.

    Args:
        experiment: where things lie, and how many at a time.
        trials: its runs, which `refuse_other_settings` let pass; each dataset and journal must be there.

    Returns:
        name of a run that failed -> its last message.

    Raises:
        UserError: the devices cannot be shared out.
        Unfinished: Ctrl-C, SIGTERM or a notice; the runs have saved and stopped, the same call goes on.
    """
    places = shares(*accelerators(), experiment.parallel)
    out = Path(experiment.out)
    for folder in ("configs", "logs", "runs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    todo = [trial for trial in trials if not is_finished(trial)]
    with (
        stop_signals() as stop,
        ThreadPoolExecutor(len(places)) as pool,
        tqdm(total=len(trials), initial=len(trials) - len(todo), unit="run", desc="experiment") as bar,
    ):
        work = _Work(out, stop)
        for place in places:
            work.places.put(place)
        waiting = [pool.submit(work.do, trial, bar) for trial in todo]
        shown, stopping = "", False
        while not all(future.done() for future in waiting):
            time.sleep(0.2)
            if stop.is_set() and not stopping:
                work.end_running()
                stopping = True
            if (now := work.progress()) != shown:
                bar.set_postfix_str(shown := now)
        for future in waiting:
            future.result()
    if stop.is_set():
        left = sum(not is_finished(trial) for trial in trials)
        raise Unfinished(f"stopped as asked with {left} of {len(trials)} runs to do; the same command goes on.")
    return work.failed


@dataclass
class _Work:
    """State shared by the threads, one thread per running process."""

    out: Path
    stop: threading.Event
    places: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    running: dict[str, subprocess.Popen] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def end_running(self) -> None:
        """Runs save and stop at SIGTERM."""
        for process in list(self.running.values()):
            process.terminate()

    def do(self, trial: Trial, bar: tqdm) -> None:
        """One run from its config to its mark."""
        if self.stop.is_set():
            return
        place = self.places.get()
        run, log = Path(trial.config.out), self.out / "logs" / f"{trial.name}.log"
        config = self.out / "configs" / f"{trial.name}.yaml"
        replace_text(config, to_yaml(trial.config))
        began = time.monotonic()
        try:
            with log.open("ab") as file:
                code = self._wait(trial.name, [*COMMAND, str(config), str(run)], place, file)
        finally:
            self.places.put(place)
        seconds = round(time.monotonic() - began, 1)
        if code == 0:
            replace_text(run / MARK, json.dumps({"seconds": seconds}) + "\n")
            bar.write(f"{trial.name}: {_score(run)} after {seconds:.0f} s", file=sys.stderr)
        elif not self.stop.is_set():
            self.failed[trial.name] = _last_words(log, code)
            bar.write(f"{trial.name} failed: {self.failed[trial.name]} (see {log})", file=sys.stderr)
        bar.update()

    def _wait(self, name: str, command: list[str], place: dict[str, str], log: IO[bytes]) -> int:
        # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | place,
            start_new_session=True,
            close_fds=False,  # it holds the experiment's lock too
        )
        self.running[name] = process
        if self.stop.is_set():  # set since the check above
            process.terminate()
        try:
            return process.wait()
        finally:
            del self.running[name]

    def progress(self) -> str:
        """Running trials and their steps."""
        return ", ".join(f"{name} {_step(self.out / 'runs' / name)}".strip() for name in list(self.running))


def _step(run: Path) -> str:
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
            lines = file.read().split(b"\n")
        return f"step {json.loads(lines[-2])['step']}"
    except (OSError, ValueError, LookupError):
        return ""


def _score(run: Path) -> str:
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text("utf-8"))
    return f"JS {metrics['js']:.3f}, training mean {metrics['baselines']['train_mean']['js']:.3f}"


def _last_words(log: Path, code: int) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").replace("\r", "\n").split("\n") if line.strip()]
    sentences = [line.removeprefix("aer-jax: ") for line in lines if line.startswith("aer-jax: ")]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{how}: {(sentences or lines or ['it printed nothing'])[-1]}"
