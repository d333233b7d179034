"""Experiments whose runs are stand-ins: what is run, skipped, refused and reported; then a small one with real runs."""

import copy
import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time

import numpy as np
import pytest
import small_corpus
import toy_runs

from aer_jax import cli
from aer_jax.corpora import read_corpus
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.evaluation.metrics import js_divergence
from aer_jax.experiments import experiment
from aer_jax.experiments import report_text as words
from aer_jax.experiments import trials as run_trials
from aer_jax.experiments.experiment import run_experiment
from aer_jax.experiments.settings import load_experiment
from aer_jax.files.content_hash import seal
from aer_jax.labels.journal import read_journal

FOLDS = ["fold:1/3", "fold:2/3", "fold:3/3"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(manifest, journal)."""
    folder = tmp_path_factory.mktemp("corpus")
    manifest = small_corpus.write(folder)
    return manifest, small_corpus.write_journal(folder, manifest)


@pytest.fixture
def config(tmp_path, corpus, monkeypatch):
    """An experiment of 3 arms, 3 folds, 2 seeds in a YAML file; its runs are stand-ins."""
    monkeypatch.setattr(run_trials, "COMMAND", (sys.executable, small_corpus.__file__))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    manifest, journal = corpus
    path = tmp_path / "experiment.yaml"
    path.write_text(
        f"""
out: {tmp_path / "out"}
corpus: {{name: manifest, root: {manifest}}}
proxies: {{journal: {journal}}}
splits: {FOLDS}
seeds: [0, 1]
dime_aug: [off]
recipes: {{default: }}
settings: {{model: {{checkpoint: {toy_runs.CHECKPOINT}}}}}
"""
    )
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus):
    """(directory, result) of the experiment of `config`."""
    with pytest.MonkeyPatch.context() as patch:
        path = config.__wrapped__(tmp_path_factory.mktemp("finished"), corpus, patch)
        result = run_experiment(load_experiment(path))
    return path.parent / "out", result


def test_every_speaker_is_tested_once_a_seed(finished):
    out, result = finished
    assert result["n"] == 36 and result["n_speakers"] == small_corpus.SPEAKERS and result["references"] == "human"
    assert sum(result["splits"].values()) == 36 and result["failed"] == {}
    assert list(result["arms"]) == ["default-human", "default-synthetic", "default-combined"]
    assert json.loads((out / "experiment.json").read_text()) == result
    assert len(result["runs"]) == 18 == len(list((out / "runs").iterdir()))
    assert (out / "runs" / "default-combined-fold2of3-seed1" / "cell.json").exists()


def test_rows_are_the_pooled_scores_of_the_seeds(finished, corpus):
    """What the stand-ins predict, scored here: within 1e-9."""
    out, result = finished
    dataset = open_dataset(out / "data" / "fold1of3")
    ids = sorted(dataset.utterances)
    counts = {
        id: [sum(v.utterance == id and v.label == k for v in dataset.votes) for k in dataset.classes] for id in ids
    }
    human_nk = np.array([np.divide(counts[id], sum(counts[id])) for id in ids])
    for arm, uniform in (("human", 0.3), ("combined", 0.2), ("synthetic", 0.9)):
        row = result["arms"][f"default-{arm}"]
        by_seed = [js_divergence(human_nk, (1 - u) * human_nk + u / 4).mean() for u in (uniform, uniform + 0.01)]
        assert row["by_seed"]["js"] == pytest.approx(by_seed, abs=1e-9)
        assert row["js"] == pytest.approx(np.mean(by_seed), abs=1e-9)
        assert row["ci"]["js"][0] < row["js"] < row["ci"]["js"][1]
        assert sum(level["n"] for level in row["by_ambiguity"].values()) == 36
    assert result["arms"]["default-human"]["own_labels"]["js"] == pytest.approx(result["arms"]["default-human"]["js"])
    own = result["arms"]["default-synthetic"]["own_labels"]
    assert own["references"] == "synthetic" and own["js"] != pytest.approx(
        result["arms"]["default-synthetic"]["js"], abs=1e-3
    )
    assert set(result["baselines"]) == {"uniform", "train_mean", "best_constant", "oracle_majority", "split_half"}
    assert result["baselines"]["best_constant"]["js"] <= result["baselines"]["train_mean"]["js"]


def test_tests_and_words(finished):
    out, result = finished
    tests = {(test["a"], test["b"]): test for test in result["tests"] if test["family"] == "js"}
    assert set(tests) == {
        ("default-synthetic", "default-human"), ("default-combined", "default-human"),
        ("default-combined", "default-synthetic"),
    }  # fmt: skip
    test = tests["default-combined", "default-human"]
    # All six speakers agree: the least p that six can give, 2 / 2**6, tripled by Holm's correction.
    assert test["p"] == test["p_least"] == 2 / 64 == test["p_wilcoxon"]
    assert test["p_holm"] == pytest.approx(3 * 2 / 64) and not test["significant"] and test["difference"] < 0
    said = "\n".join(result["findings"])
    assert "default-combined against default-human: JS " in said and "no significant difference" in said
    assert "6 speakers cannot give a p below 0.031" in said
    page = (out / "tables.md").read_text()
    assert "on own labels" in page and "| Half the listeners vs half |" in page and "## UAR" in page


def test_two_speakers_have_tables_without_intervals(finished):
    result = copy.deepcopy(finished[1]) | {"n_speakers": 2}
    for test in result["tests"]:
        test |= {"ci": None, "n_speakers": 2}
    for row in (result["arms"] | result["baselines"]).values():
        row["ci"] = dict.fromkeys(row["ci"])
    for page in (words.markdown(result | {"findings": words.findings(result)}, "x"), words.text(result)):
        assert "n/a, needs at least 3 speakers" in page and "None" not in page


def test_folds_share_their_shards_and_are_what_prepare_makes(finished, corpus, tmp_path):
    out, _ = finished
    alone = prepare(read_corpus("manifest", corpus[0]), tmp_path / "alone", split="fold:2/3")
    shared = open_dataset(out / "data" / "fold2of3", verify=True)
    assert shared.splits == alone.splits and shared.votes == alone.votes
    record = next(shared.path.glob("*.array_record"))
    assert record.stat().st_ino == (out / "data" / "fold1of3" / record.name).stat().st_ino
    same = ("format", "corpus", "classes", "counts", "settings")
    ours, theirs = (json.loads((d.path / "dataset.json").read_text()) for d in (shared, alone))
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    assert ours["sha256"]["splits.json"] == theirs["sha256"]["splits.json"]


def test_a_second_call_runs_nothing(config, tmp_path, capsys):
    command = ["experiment", str(config), "seeds=[0]", "labels=[human, combined]", "--json"]
    assert cli.main(command) == 0
    first = json.loads(capsys.readouterr().out)
    logs = {run: (tmp_path / "out" / "runs" / run / "metrics.jsonl").read_text() for run in first["runs"]}
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert all((tmp_path / "out" / "runs" / run / "metrics.jsonl").read_text() == log for run, log in logs.items())
    (tmp_path / "out" / "runs" / "default-human-fold2of3-seed0" / "cell.json").unlink()
    assert cli.main(command) == 0
    again = {run for run, log in logs.items() if (tmp_path / "out" / "runs" / run / "metrics.jsonl").read_text() != log}
    assert again == {"default-human-fold2of3-seed0"}, "what is half done goes on, the rest is kept"


def test_changed_settings_are_refused_before_anything_runs(config, tmp_path, capsys):
    assert cli.main(["experiment", str(config), "seeds=[0]", "labels=[human]"]) == 0
    assert cli.main(["experiment", str(config), "settings.train.lr=0.5"]) == 2
    error = capsys.readouterr().err
    assert "default-human-fold1of3-seed0 was begun with other settings (train.lr: 0.0001 -> 0.5)" in error
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 3
    assert cli.main(["experiment", str(config), "corpus.seed=4"]) == 2
    assert "prepared with seed 0, not 4" in capsys.readouterr().err


def test_a_finished_run_whose_predictions_were_replaced_is_refused(config, tmp_path, capsys):
    """The tables are made of what is on disk, so that it must be what the runs wrote."""
    command = ["experiment", str(config), "seeds=[0]", "labels=[human]"]
    assert cli.main(command) == 0
    tables = (tmp_path / "out" / "tables.md").read_text()
    folder = tmp_path / "out" / "runs" / "default-human-fold2of3-seed0" / "evaluation" / "test"
    metrics, lines = json.loads((folder / "metrics.json").read_text()), (folder / "predictions.jsonl").read_bytes()
    digest = hashlib.sha256(lines).hexdigest()
    (folder / "metrics.json").write_text(json.dumps(seal(metrics | {"inputs": {"predictions": digest}})))
    assert cli.main(command) == 0
    shutil.copy(str(folder).replace("fold2", "fold1") + "/predictions.jsonl", folder)
    capsys.readouterr()
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert f"{folder}/metrics.json is of different data than the predictions next to it" in error
    (folder / "predictions.jsonl").unlink()
    assert cli.main(command) == 2
    assert "has no evaluation of the test split" in capsys.readouterr().err
    assert (tmp_path / "out" / "tables.md").read_text() == tables


def test_a_failed_run_is_reported_and_the_others_go_on(config, monkeypatch, capsys):
    monkeypatch.setenv("FAIL", "default-synthetic-fold2of3-seed0")
    assert cli.main(["experiment", str(config), "seeds=[0]"]) == 1
    captured = capsys.readouterr()
    assert "1 of 9 runs failed, the first is default-synthetic-fold2of3-seed0 (exit code 2: the loss is not finite" in (
        captured.err
    )
    assert "default-combined" in captured.out and "default-synthetic  " not in captured.out
    monkeypatch.setenv("FAIL", "")
    assert cli.main(["experiment", str(config), "seeds=[0]"]) == 0
    assert "default-synthetic  " in capsys.readouterr().out


def test_two_at_a_time(config, monkeypatch, tmp_path):
    monkeypatch.setenv("SLEEP", "0.4")
    run_experiment(load_experiment(config, ["parallel=2", "labels=[human, combined]", "seeds=[0]"]))
    spans = []
    for run in (tmp_path / "out" / "runs").iterdir():
        spans.append(json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["between"])
    together = [sum(a[0] < t < a[1] for a in spans) for t in itertools.chain(*spans)]
    assert max(together) == 1, "at the end of each run, one other is under way at most and sometimes"


def test_stopped_and_gone_on(config, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SLEEP", "3")

    def stop():
        while not list((tmp_path / "out" / "runs").glob("*/metrics.jsonl")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert cli.main(["experiment", str(config), "seeds=[0]", "labels=[human]"]) == 75
    assert "stopped as asked with 3 of 3 runs to do; the same command goes on" in capsys.readouterr().err
    monkeypatch.setenv("SLEEP", "0")
    assert cli.main(["experiment", str(config), "seeds=[0]", "labels=[human]"]) == 0


@pytest.mark.parametrize("answers", ["constrained", "exact"])
def test_synthetic_votes_are_asked_for_once(config, tmp_path, answers, capfd):
    """Of the toy checkpoint, by a process of its own; then a second call asks nothing."""
    out = tmp_path / "asked"
    asked = [f"proxies.model={toy_runs.CHECKPOINT}", f"proxies.answers={answers}", "proxies.listeners=2"]
    command = ["experiment", str(config), "--out", str(out), "--json", 'proxies.journal=""', *asked]
    command += ["seeds=[0]", "labels=[synthetic]"]
    assert cli.main(command) == 0
    result = json.loads(capfd.readouterr().out)
    votes = read_journal(out / "journal.jsonl")
    assert len(votes) == 2 * result["n"] and {vote.answers for vote in votes} == {answers}
    assert all((vote.probs is None) == (answers == "constrained") for vote in votes)
    assert cli.main(command) == 0 and len(read_journal(out / "journal.jsonl")) == len(votes)


def test_a_model_that_cannot_be_asked(config, tmp_path, capfd):
    assert cli.main(["experiment", str(config), 'proxies.journal=""', f"proxies.model={tmp_path / 'none'}"]) == 2
    said = capfd.readouterr().err
    assert f"{tmp_path / 'none'}" in said and "ended with exit code 2 and said why above" in said
    assert not (tmp_path / "out" / "runs").exists()


def test_stopped_while_votes_are_asked_for(config, monkeypatch, tmp_path, capfd):
    sleeper = (sys.executable, "-c", f"open({str(tmp_path / 'asked')!r}, 'w'); import time; time.sleep(60)")
    monkeypatch.setattr(experiment, "ANNOTATE", sleeper)

    def stop():
        while not (tmp_path / "asked").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert cli.main(["experiment", str(config), f"proxies.model={toy_runs.CHECKPOINT}"]) == 75
    assert "with synthetic votes still to ask for; the same command goes on" in capfd.readouterr().err


@pytest.mark.parametrize("key", ["corpus.root", "settings.model.checkpoint"])
def test_what_every_run_needs(config, tmp_path, capsys, key):
    assert cli.main(["experiment", str(config), f'{key}=""', "--out", str(tmp_path / "elsewhere")]) == 2
    assert f"{key} is not set" in capsys.readouterr().err and not (tmp_path / "elsewhere").exists()


def test_one_experiment_at_a_time(config, tmp_path, capsys):
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.main(["experiment", str(config)]) == 2
    assert "is writing to" in capsys.readouterr().err


def test_a_real_run(config, monkeypatch, tmp_path, capsys):
    """One, trained for an epoch and evaluated by a process of its own; its row is what evaluate says."""
    monkeypatch.undo()
    small = ["data.shapes=1", "model.remat=none", "train.epochs=1", "train.batch=8", "train.lr=3e-3"]
    command = ["experiment", str(config), "seeds=[0]", "splits=[fold:1/3]", "labels=[combined]"]
    assert cli.main(command + [f"settings.{setting}" for setting in small]) == 0
    assert "default-combined" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "experiment.json").read_text())
    run = tmp_path / "out" / "runs" / "default-combined-fold1of3-seed0"
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    row = result["arms"]["default-combined"]
    for name in ("js", "js_distance", "bc", "r2", "ece", "ece_soft", "accuracy", "uar", "macro_f1", "weighted_f1"):
        assert row[name] == pytest.approx(metrics[name], abs=1e-9)
        for baseline in set(result["baselines"]) & set(metrics["baselines"]):
            theirs = metrics["baselines"][baseline].get(name)
            if theirs is not None:
                assert result["baselines"][baseline][name] == pytest.approx(theirs, abs=1e-9), (baseline, name)
    assert row["ci"]["js"] == pytest.approx(metrics["ci"]["js"], abs=1e-9)
    lines = (tmp_path / "out" / "predictions" / "default-combined.jsonl").read_text().splitlines()
    assert len(lines) == result["n"] == 12
