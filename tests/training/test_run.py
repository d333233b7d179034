"""Run directories: made, opened, resumed; refused where they do not fit."""

import dataclasses
import json
import shutil

import pytest
import toy_runs

from aer_jax.config import load_config
from aer_jax.errors import UserError
from aer_jax.training.run import add_facts, create_run, open_run, resume_run


@pytest.fixture
def run(tmp_path):
    """One that has logged something, with a base checkpoint of its own."""
    base = tmp_path / "base"
    shutil.copytree(toy_runs.CHECKPOINT, base)
    run = create_run(toy_runs.config(tmp_path / "run", f"model.checkpoint={base}"), ("a", "b"))
    (run.path / "metrics.jsonl").write_text("")
    return run


def test_what_is_written_is_what_is_opened(run):
    again = open_run(run.path)
    assert again == run
    assert again.classes == ("a", "b")
    assert load_config(run.path / "config.yaml") == run.config
    assert json.loads((run.path / "environment.json").read_text())["packages"]["jax"]


def test_facts_stand_beside_the_environment(run):
    add_facts(run, batches={"padding": {"frames": 0.05}})
    written = (run.path / "environment.json").stat().st_mtime_ns
    add_facts(open_run(run.path), batches={"padding": {"frames": 0.05}})
    assert (run.path / "environment.json").stat().st_mtime_ns == written
    assert open_run(run.path).environment["batches"] == {"padding": {"frames": 0.05}}
    assert open_run(run.path).classes == ("a", "b")


def test_a_run_is_not_overwritten(run):
    with pytest.raises(UserError, match=r"already holds a run.*--resume"):
        create_run(run.config, ("a", "b"))


def test_a_start_that_failed_is_begun_anew(run):
    (run.path / "metrics.jsonl").unlink()
    (run.path / "dime_aug.json").write_text("of other settings")
    other = dataclasses.replace(run.config, seed=7)
    assert open_run(create_run(other, ("a", "b")).path).config.seed == 7
    assert not (run.path / "dime_aug.json").exists()


def test_resume_with_other_settings_names_them(run):
    with pytest.raises(UserError) as error:
        resume_run(
            dataclasses.replace(run.config, seed=7, train=dataclasses.replace(run.config.train, lr=0.5, batch=64))
        )
    message = str(error.value)
    assert "seed: 0 -> 7" in message and "train.lr: 0.003 -> 0.5" in message and "train.batch: 8 -> 64" in message
    assert "patience" not in message


def test_resume_may_change_devices_and_place(run):
    run.path.rename(run.path.with_name("moved"))
    config = dataclasses.replace(
        run.config, out=str(run.path.with_name("moved")), mesh=dataclasses.replace(run.config.mesh, data=1)
    )
    resumed = resume_run(config)
    assert resumed.config == config and resumed.path.name == "moved"


def test_another_base_is_refused(run, tmp_path):
    weights = tmp_path / "base" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"is not the base that .* was trained on"):
        open_run(run.path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UserError, match="is gone: there is no checkpoint directory"):
        open_run(run.path)


def test_what_is_no_run_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        open_run(tmp_path)
    (run.path / "environment.json").write_text('{"classes": [')
    with pytest.raises(UserError, match="is not JSON"):
        open_run(run.path)
