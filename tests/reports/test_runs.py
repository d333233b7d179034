import json
import shutil

import pytest
from small_runs import CLASSES, small_dataset, small_run

from aer_jax.errors import UserError
from aer_jax.reports.runs import best, load_runs


def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / run.name)


def test_runs_are_read(runs):
    loaded = load_runs(runs)
    assert [run.name for run in loaded] == ["human", "synthetic", "combined"]
    assert best(loaded).metrics["js"] == min(run.metrics["js"] for run in loaded)
    assert loaded[1].config.labels.source == "synthetic"
    assert len(loaded[0].predictions) == loaded[0].metrics["n"] == 36


def test_runs_of_the_same_name_are_told_apart(runs, tmp_path):
    names = [run.name for run in load_runs([runs[0], copied(runs[0], tmp_path)])]
    assert names[0].endswith("/human") and names[1].endswith("/human") and names[0] != names[1]


def test_what_is_no_evaluated_run_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="at least one run"):
        load_runs([])
    with pytest.raises(UserError, match="is not a run directory"):
        load_runs([tmp_path])
    with pytest.raises(UserError, match="named twice"):
        load_runs([runs[0], runs[0]])
    with pytest.raises(UserError, match=r"`aer-jax evaluate --run \S+human --split validation` first"):
        load_runs(runs, split="validation")
    run = copied(runs[0], tmp_path)
    (run / "evaluation" / "test" / "predictions.jsonl").unlink()
    with pytest.raises(
        UserError, match=r"has no evaluation of the test split .*run `aer-jax evaluate --run \S+` first"
    ):
        load_runs([run])


def test_damaged_files_are_named(runs, tmp_path):
    run = copied(runs[0], tmp_path)
    metrics = run / "evaluation" / "test" / "metrics.json"
    kept = json.loads(metrics.read_text())
    metrics.write_text(json.dumps({key: value for key, value in kept.items() if key != "baselines"}))
    with pytest.raises(UserError, match=r"metrics.json lacks baselines; run `aer-jax evaluate"):
        load_runs([run])
    metrics.write_text("{")
    with pytest.raises(UserError, match=r"metrics.json is not a JSON object"):
        load_runs([run])
    metrics.write_text(json.dumps(kept))
    predictions = metrics.with_name("predictions.jsonl")
    predictions.write_text(predictions.read_text() + "[]\n")
    with pytest.raises(UserError, match=r"predictions.jsonl, line 37, is not a JSON object; run `aer-jax evaluate"):
        load_runs([run])


def test_a_torn_line_of_the_log_is_counted(runs, tmp_path):
    run = copied(runs[0], tmp_path)
    assert load_runs([run])[0].torn == 0
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    (loaded,) = load_runs([run])
    assert loaded.torn == 1 and len(loaded.log) == 66


def test_other_test_data_are_refused(runs, dataset, tmp_path):
    other = small_run(tmp_path / "other", small_dataset(tmp_path / "data", clips=10), seed=4)
    with pytest.raises(UserError, match=r"human and .*other were evaluated on different data \(36 utt.* 30 of small"):
        load_runs([runs[0], other])
    votes = small_run(tmp_path / "votes", small_dataset(tmp_path / "again", seed=5), seed=4)  # same ids, other votes
    with pytest.raises(UserError, match="different data"):
        load_runs([runs[0], votes])
    changed = copied(runs[0], tmp_path)
    metrics = changed / "evaluation" / "test" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"classes": list(reversed(CLASSES))}))
    with pytest.raises(UserError, match=r"different classes \(anger, .* and sadness, "):
        load_runs([runs[0], changed])
