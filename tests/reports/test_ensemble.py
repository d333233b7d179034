"""The mean of several runs: scored as scipy and numpy score it, and never of runs that heard something else."""

import json

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from small_runs import small_run

from aer_jax import cli
from aer_jax.errors import UserError
from aer_jax.reports.ensemble import ENSEMBLE, ensemble, table
from aer_jax.reports.runs import load_runs


def test_the_mean_is_scored_beside_its_members(runs, tmp_path):
    result = ensemble(runs, out=tmp_path / "new" / "mean.jsonl")
    loaded = load_runs(runs)
    for run in loaded:
        for quantity, value in result["rows"][run.name].items():
            assert value == pytest.approx(run.metrics[quantity], abs=1e-9)
    written = [json.loads(line) for line in (tmp_path / "new" / "mean.jsonl").read_text().splitlines()]
    said = {line["id"]: line for line in written}
    js, members = [], []
    for lines in zip(*(run.predictions for run in loaded), strict=True):
        reference_k = np.array(list(lines[0]["reference"].values()))
        probs_mk = np.array([list(line["probs"].values()) for line in lines])
        np.testing.assert_allclose(list(said[lines[0]["id"]]["probs"].values()), probs_mk.mean(axis=0))
        js.append(jensenshannon(reference_k, probs_mk.mean(axis=0), base=2) ** 2)
        members.append(np.mean([jensenshannon(reference_k, probs_k, base=2) ** 2 for probs_k in probs_mk]))
    assert result["rows"][ENSEMBLE]["js"] == pytest.approx(np.mean(js))
    assert result["gain"]["js"]["mean"] == pytest.approx(np.mean(members) - np.mean(js))
    low, high = result["gain"]["js"]["ci"]
    assert 0 <= low <= result["gain"]["js"]["mean"] <= high
    assert f"{np.mean(js):.4f}" in table(result) and len(result["rows"]) == len(runs) + 1


def test_two_speakers_have_no_interval(runs, tmp_path):
    result = ensemble(runs) | {"n_speakers": 2}
    result["gain"]["js"]["ci"] = None
    assert "(95% over speakers: n/a, needs at least 3 speakers)" in table(result)


def test_a_run_twice_or_alone_is_refused(runs, capsys):
    with pytest.raises(UserError, match="at least two"):
        ensemble(runs[:1])
    assert cli.main(["ensemble", "--run", str(runs[0]), str(runs[0])]) == 2
    assert "named twice" in capsys.readouterr().err


def test_other_data_is_refused(runs, dataset, tmp_path):
    other = small_run(tmp_path / "other", dataset)
    lines = [json.loads(line) for line in (other / "evaluation/test/predictions.jsonl").read_text().splitlines()]
    (other / "evaluation/test/predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    with pytest.raises(UserError, match="different data"):
        ensemble([runs[0], other])
