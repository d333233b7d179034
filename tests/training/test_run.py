"""Run directories: made, opened, resumed; refused where they do not fit."""

import dataclasses
import json
import shutil

import pytest
import toy_runs

from aer_jax.config import load_config
from aer_jax.errors import UserError
from aer_jax.training.run import add_facts, create_run, holds_run, open_run, read_run, resume_run


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


def change(config, **sections):
    """A Config with other values: section={"key": value}."""
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    )


@pytest.fixture
def movable(run, tmp_path):
    """The run, its dataset and a journal in places of their own."""
    dataset, journal = tmp_path / "dataset", tmp_path / "journal.jsonl"
    shutil.copytree(toy_runs.toy_dataset(), dataset)
    journal.write_text("votes\n")
    config = change(run.config, data={"dataset": str(dataset)}, labels={"source": "combined", "journal": str(journal)})
    (run.path / "metrics.jsonl").unlink()
    run = create_run(config, ("a", "b"))
    (run.path / "metrics.jsonl").write_text("")
    return run


def test_resume_may_find_the_same_things_elsewhere(movable, tmp_path):
    """Afterwards the run knows where they lie now."""
    for name in ("dataset", "base", "journal.jsonl"):
        (tmp_path / name).rename(tmp_path / f"other_{name}")
    moved = change(
        movable.config,
        data={"dataset": str(tmp_path / "other_dataset")},
        labels={"journal": str(tmp_path / "other_journal.jsonl")},
        model={"checkpoint": str(tmp_path / "other_base")},
        train={"checkpoint_minutes": 1.0},
    )
    resume_run(moved)
    assert open_run(movable.path).config == moved


@pytest.mark.parametrize(
    ("harm", "setting"),
    [
        ("votes.jsonl", "data.dataset"),
        ("splits.json", "data.dataset"),
        ("records", "data.dataset"),
        ("journal", "labels.journal"),
        ("base", "model.checkpoint"),
    ],
)
def test_resume_with_other_content_is_refused(movable, tmp_path, harm, setting):
    files = {
        "records": next((tmp_path / "dataset").glob("*.array_record")),
        "journal": tmp_path / "journal.jsonl",
        "base": tmp_path / "base" / "config.json",
    }
    with files.get(harm, tmp_path / "dataset" / harm).open("a") as file:
        file.write(" ")
    with pytest.raises(UserError, match=f"{setting}: .* is not what .* was begun with"):
        resume_run(movable.config)


def test_resume_without_its_journal(movable, tmp_path):
    (tmp_path / "journal.jsonl").unlink()
    with pytest.raises(UserError, match=r"cannot read .*journal\.jsonl"):
        resume_run(movable.config)


def test_other_packages_and_devices_are_said_and_written_down(run, capsys):
    resume_run(run.config)
    assert not capsys.readouterr().err and "resumed_with" not in open_run(run.path).environment
    environment = json.loads((run.path / "environment.json").read_text())
    environment["packages"]["jax"] = "0.1"
    environment["devices"] = 64
    (run.path / "environment.json").write_text(json.dumps(environment))
    resume_run(run.config)
    assert "jax 0.1 -> " in capsys.readouterr().err
    again = open_run(run.path).environment
    assert again["devices"] == 64 and again["resumed_with"]["devices"] == 1
    assert again["packages"]["jax"] == "0.1" != again["resumed_with"]["packages"]["jax"]


def test_a_run_counts_from_its_first_step(run):
    assert holds_run(run.config)
    (run.path / "metrics.jsonl").unlink()
    assert not holds_run(run.config)


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


def test_more_epochs_extend_a_run(run, capsys):
    """What it was begun with stays known; fewer epochs, or other settings beside, are refused."""
    checkpoint = run.path / "checkpoints" / "15"
    checkpoint.mkdir(parents=True)
    (checkpoint / "commit_success.txt").write_text("")
    resumed = resume_run(change(run.config, train={"epochs": 5}))
    assert "is extended from 3 to 5 epochs" in capsys.readouterr().err
    assert resumed.epochs == [3, 5] and open_run(run.path).epochs == [3, 5]
    assert resume_run(change(run.config, train={"epochs": 5})).epochs == [3, 5] and not capsys.readouterr().err
    assert resume_run(change(run.config, train={"epochs": 9})).epochs == [3, 5, 9]
    with pytest.raises(UserError, match=r"train.epochs: 9 -> 3"):
        resume_run(run.config)
    with pytest.raises(UserError, match=r"settings \(train.lr: 0.003 -> 0.5\)"):
        resume_run(change(run.config, train={"epochs": 12, "lr": 0.5}))


def test_a_fitted_readout_is_not_extended(tmp_path):
    run = create_run(toy_runs.config(tmp_path / "run", "train.epochs=0"), ("a", "b"))
    with pytest.raises(UserError, match=r"fitted a readout alone"):
        resume_run(change(run.config, train={"epochs": 3}))


@pytest.mark.parametrize(
    ("file", "was", "becomes"),
    [
        ("environment.json", '"a",', '"c",'),
        ("config.yaml", "alpha: ", "alpha: 1"),
        ("config.yaml", "head_lr: ", "head_lr: 1"),
        ("config.yaml", "epochs: ", "epochs: 1"),
        ("config.yaml", "max_seconds: 3", "max_seconds: 2"),
    ],
)
def test_a_changed_record_of_a_run_is_noticed(run, file, was, becomes):
    path = run.path / file
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, becomes, 1))
    with pytest.raises(UserError, match="is not what was written"):
        open_run(run.path)
    with pytest.raises(UserError, match="is not what was written"):
        resume_run(dataclasses.replace(load_config(run.path / "config.yaml"), out=str(run.path)))


def test_a_stop_between_the_two_files_of_an_extension_leaves_the_run_as_it_was(run):
    begun = (run.path / "config.yaml").read_text()
    step = run.path / "checkpoints" / "3"
    step.mkdir(parents=True)
    (step / "commit_success.txt").write_text("")
    longer = change(run.config, train={"epochs": run.config.train.epochs + 2})
    resume_run(longer)
    (run.path / "config.yaml").write_text(begun)
    assert read_run(run.path).epochs == [run.config.train.epochs]
    assert resume_run(longer).epochs == [run.config.train.epochs, longer.train.epochs]
