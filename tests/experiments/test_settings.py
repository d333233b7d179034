"""The experiments of `configs/experiments`, and what is refused before anything is written."""

from pathlib import Path

import pytest

from aer_jax.config import RECIPES
from aer_jax.devices import accelerators, shares
from aer_jax.errors import UserError
from aer_jax.experiments.experiment import refuse_unset
from aer_jax.experiments.settings import arms, load_experiment, trials

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "experiments").glob("*.yaml"))
RUNS = {"crema_d_4": 60, "crema_d_6": 60, "crema_d_adapters": 13, "iemocap": 60, "msp_podcast": 12, "toy": 18}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_experiments(path):
    grid = trials(load_experiment(path))
    assert len(grid) == RUNS[path.stem] == len({trial.config.out for trial in grid})
    for trial in grid:
        assert trial.config.recipe == (trial.arm.recipe if trial.arm.recipe in RECIPES else "default")
        assert trial.config.labels.source == trial.arm.labels
        assert (trial.config.data.dime_aug.ratio > 0) == trial.arm.dime_aug == ("dime" in trial.name)
        assert trial.config.seed == trial.seed and trial.config.data.dataset.startswith(
            f"runs/experiments/{path.stem}/data"
        )
        assert (trial.config.labels.journal is None) == (trial.arm.labels == "human")
    paper = [trial.config for trial in grid if trial.arm.recipe == "paper"]
    assert all(config.train.lr == RECIPES["paper"]["train"]["lr"] and config.model.head == "paper" for config in paper)


def test_a_recipe_goes_over_the_settings_of_all(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(
        "out: o\ncorpus: {name: toy}\nlabels: [human]\ndime_aug: [off]\nsplits: [speakers]\nseeds: [3]\n"
        "recipes: {slow: {recipe: paper, train: {lr: 1e-9}}, default: }\nsettings: {train: {lr: 1e-3, epochs: 2}}\n"
    )
    slow, default = trials(load_experiment(path))
    assert (slow.config.train.lr, slow.config.train.epochs, slow.config.model.head) == (1e-9, 2, "paper")
    assert (default.config.train.lr, default.config.train.epochs, default.config.seed) == (1e-3, 2, 3)
    assert [arm.name for arm in arms(load_experiment(path))] == ["slow-human", "default-human"]
    assert slow.name == "slow-human-speakers-seed3" and slow.config.out == "o/runs/slow-human-speakers-seed3"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=3", 'unknown key "seed". Did you mean "seeds"'),
        ("settings.train.lrr=3", 'unknown key "train.lrr"'),
        ("settings.lr=3", 'unknown key "lr". Did you mean "train.lr"'),
        ("lr=3", 'unknown key "lr". Known here'),
        ("labels=[human, humane]", 'labels names "humane"'),
        ("seeds=[1, 1]", "seeds must name at least one value, and each once"),
        ("recipes={a-b: }", 'recipe name "a-b"'),
        ("corpus.outside=keep", "must be one of renormalise, drop"),
        ("settings.data.dime_aug.ratio=0", "so DiME-Aug cannot be on"),
        ('out=""', "out is not set"),
        ("parallel=two", "parallel must be int"),
        ("parallel=-1", "parallel is -1; it must lie between 0 and 1000"),
        ("seeds=[0, -1]", "seeds is -1; it must lie between 0 and 2147483647"),
        ("proxies.listeners=0", "proxies.listeners is 0; it must lie between 1 and 10000"),
        ("settings.train.lr=nan", "train.lr is nan; it must lie between 0 and 100"),
    ],
)
def test_refused(override, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(").replace("[", r"\[").replace(".", r"\.")):
        load_experiment(CONFIGS[-1], [override])


def test_settings_that_do_not_fit_each_other_are_refused_before_anything_is_prepared():
    experiment = load_experiment(
        CONFIGS[-1], ["corpus.root=x", "settings.model.checkpoint=c", "settings.train.microbatch=7"]
    )
    with pytest.raises(UserError, match=r"train.batch \d+ must be a multiple of train.microbatch 7"):
        refuse_unset(experiment, trials(experiment))


def test_accelerators_are_shared_out(tmp_path):
    assert accelerators(tmp_path, {}) == ("cpu", [])
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidia2", "nvidiactl"):
        (tmp_path / name).touch()
    assert accelerators(tmp_path, {}) == ("cuda", ["0", "1", "2", "10"])
    assert accelerators(tmp_path, {"CUDA_VISIBLE_DEVICES": "4,6"}) == ("cuda", ["4", "6"])
    assert accelerators(tmp_path, {"CUDA_VISIBLE_DEVICES": ""}) == ("cpu", [])
    assert accelerators(tmp_path, {"JAX_PLATFORMS": "cpu"}) == ("cpu", [])
    four = ("cuda", ["0", "1", "2", "3"])
    assert shares(*four, 1) == [{}] == shares("cpu", [], 0), "one process sees all"
    assert shares(*four, 0) == [{"CUDA_VISIBLE_DEVICES": str(i)} for i in range(4)]
    assert shares(*four, 2) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    assert [share["TPU_VISIBLE_CHIPS"] for share in shares("tpu", list("0123"), 0)] == list("0123")
    for kind, parallel in (("cuda", 3), ("tpu", 2)):
        with pytest.raises(UserError, match=f"parallel is {parallel}"):
            shares(kind, list("0123"), parallel)
