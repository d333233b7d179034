"""The main job on the embedded default: all 240 clips, fewer listeners and epochs than the real demo."""

import functools
import json

import pytest
import toy_runs

from aer_jax import cli
from aer_jax.data.dataset import open_dataset
from aer_jax.demo import demo as module
from aer_jax.evaluation.raters.quality import quality

ARMS = ("human", "synthetic", "combined")


@pytest.fixture(scope="module")
def demo():
    """(directory, what a call prints) after the first call."""
    out = toy_runs.HERE / "demo"
    quick = functools.partial(module.demo, listeners=2, epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "demo", quick)

        def call(capsys):
            assert cli.main(["demo", "--out", str(out)]) == 0
            return capsys.readouterr().out

        yield out, call


def test_demo(demo, capsys):
    out, call = demo
    table = call(capsys)
    for name in (*ARMS, "Uniform", "Training mean", "Best constant", "Majority label (oracle)", "Half the listeners"):
        assert f"\n{name}" in table
    assert table.endswith(f"the page: {out}/report.html\n")
    page = (out / "report.html").read_text()
    assert page.startswith("<!doctype html>") and all(arm in page for arm in ARMS)

    for arm in ARMS:
        metrics = json.loads((out / arm / "evaluation" / "test" / "metrics.json").read_text())
        assert metrics["references"] == "human" and metrics["n_speakers"] == 4
        assert metrics["js"] < metrics["baselines"]["train_mean"]["js"]
        assert metrics["baselines"]["oracle_majority"]["js"] < metrics["baselines"]["uniform"]["js"]

    files = [out / "journal.jsonl", *(out / arm / "metrics.jsonl" for arm in ARMS)]
    before = [file.read_bytes() for file in files]
    assert call(capsys) == table, "a second call finds everything done"
    assert [file.read_bytes() for file in files] == before


def test_synthetic_listeners_agree_with_the_toy_listeners(demo):
    """The packaged checkpoint answers about what it hears: better than its answers about other clips."""
    out, _ = demo
    dataset = open_dataset(out / "dataset")
    agreement = quality(dataset, out / "journal.jsonl")
    assert agreement["utterances"] > 0.95 * len(dataset.utterances) == 0.95 * 240
    assert agreement["p_shuffled"] < 0.01
    assert agreement["js"] < 0.75 * agreement["js_shuffled"]
    assert agreement["js"] < agreement["baselines"]["best_constant"]["js"]
    assert agreement["unparsed_share"] < 0.05


def test_the_checkpoint_is_small():
    assert sum(file.stat().st_size for file in toy_runs.CHECKPOINT.rglob("*")) < 4e6
