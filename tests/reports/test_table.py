# ruff: noqa: RUF001 (the table uses true minus signs and en dashes)
import dataclasses

from small_runs import small_run

from aer_jax.config import LabelsConfig
from aer_jax.evaluation.baselines import BASELINES
from aer_jax.files.tables import number, percent
from aer_jax.reports.pages.report import write_report
from aer_jax.reports.runs import load_runs
from aer_jax.reports.table import SHARED, about, learned_from, rows, span, summary_table


def test_rows_are_the_arms_and_then_every_baseline(runs):
    loaded = load_runs(runs)
    found = rows(loaded)
    assert [row.name for row in found] == [
        "human",
        "synthetic",
        "combined",
        *(baseline.label for baseline in BASELINES.values()),
    ]
    assert [row.arm for row in found[:4]] == [0, 1, 2, None]
    mean = loaded[0].metrics["baselines"]["train_mean"]
    assert found[4].values["js"] == mean["js"] and found[4].change == 0
    assert found[0].change == loaded[0].metrics["js"] / mean["js"] - 1
    assert found[3].values["accuracy"] is None


def test_summary_names_quantity_references_and_data(runs):
    text = summary_table(runs)
    lines = text.splitlines()
    assert [line.split(",")[0] for line in lines[2:5]] == ["human", "synthetic", "combined"]
    assert all(any(line.startswith(baseline.label) for line in lines) for baseline in BASELINES.values())
    js = load_runs(runs)[0].metrics["js"]
    assert f"{js:.3f}" in lines[2]
    assert "base 2" in lines[-2] and "votes of the human listeners" in lines[-2] and "36 clips, 3 speakers" in lines[-2]
    assert "95% intervals over speakers" in lines[-2] and "any of tied top classes counts" in lines[-2]
    assert lines[-1].startswith("These numbers rest on 3 speakers.")


def test_intervals_of_earlier_versions_are_said_to_be_theirs(runs):
    (run,) = load_runs(runs[:1])
    assert "bootstrap" not in about([run])
    del run.metrics["ci"]["method"]
    assert "over speakers (percentile bootstrap, too narrow; evaluate the run again)" in about([run])


def test_speakers_that_were_trained_on_are_said(dataset, runs, tmp_path):
    shared = small_run(tmp_path / "shared", dataclasses.replace(dataset, speakers_apart=False))
    assert SHARED in summary_table([shared]).splitlines()[-2]
    assert SHARED not in summary_table(runs)
    write_report([shared], tmp_path / "shared.html")
    write_report(runs, tmp_path / "apart.html")
    said = "These speakers were heard in training too"
    assert said in (tmp_path / "shared.html").read_text() and said not in (tmp_path / "apart.html").read_text()


def test_words_and_numbers():
    assert learned_from(LabelsConfig()) == "human"
    assert learned_from(LabelsConfig(source="combined")) == "human + synthetic"
    assert learned_from(LabelsConfig(source="combined", synthetic_weight=0.5)) == "human + synthetic (weight 0.5)"
    learned = LabelsConfig(source="combined", synthetic_weight="learned")
    assert learned_from(learned, 0.123) == "human + synthetic (learned weight 0.12)"
    assert [number(None), number(-0.5), number(0.12345)] == ["–", "−0.500", "0.123"]
    assert [percent(None), percent(0.001), percent(-0.2), percent(0.2)] == ["–", "0%", "−20%", "+20%"]
    assert [span(None, 9, None), span(None, 9), span([0.1, 0.2], 9)] == ["–", "n/a", "0.100–0.200"]
    assert span(None, 2) == "n/a, needs at least 3 speakers"
