"""Settings of an experiment: a grid over splits, seeds, recipes, labels and DiME-Aug, in YAML."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from aer_jax.bounds import SEED, Range
from aer_jax.config import RECIPES, Config, make_config
from aer_jax.errors import UserError
from aer_jax.files.typed_settings import build, merge, read_settings
from aer_jax.labels.attempts import Answers

LABELS = ("human", "synthetic", "combined")


@dataclass(frozen=True)
class CorpusConfig:
    """The corpus, as `aer-jax prepare` takes it; see its help.

    Attributes:
        name: of the reader.
        root: where the corpus lies; None for `toy`.
        classes: in order; none given takes the corpus' usual ones.
        outside: "renormalise" or "drop" clips with votes outside the classes.
        seed: of what the splits draw.
        lenient: skip and count lines that cannot be read.
        excited, multi_label, improvised, audio, map, labels: choices of one corpus.
    """

    name: str = ""
    root: str | None = None
    classes: tuple[str, ...] = ()
    outside: Literal["renormalise", "drop"] = "renormalise"
    seed: Annotated[int, SEED] = 0
    lenient: bool = False
    excited: str | None = None
    multi_label: str | None = None
    improvised: bool | None = None
    audio: str | None = None
    map: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class ProxiesConfig:
    """Where synthetic votes come from; needed where an arm learns from them.

    Attributes:
        model: checkpoint that annotates; "" takes a journal that is there already.
        answers: as `aer-jax annotate` gets them: "free" or "constrained" to the labels, both sampled by PyTorch, or
            "exact", the labels' own likelihoods.
        listeners: synthetic listeners an utterance.
        journal: the file; "" is `journal.jsonl` in the experiment's directory.
    """

    model: str = ""
    answers: Answers = "free"
    listeners: Annotated[int, Range(1, 10_000)] = 8
    journal: str = ""


@dataclass(frozen=True)
class Experiment:
    """A grid of runs. An arm is a recipe, a label source and DiME-Aug off or on; it has one run per split and seed.

    Attributes:
        out: the directory of everything that is written.
        splits: rules as `prepare --split` reads them, of one kind, no two with a test utterance in common: the folds
            are pooled, so that every speaker is tested once a seed.
        seeds: of the runs.
        labels: whose votes the arms learn from.
        dime_aug: False, True (YAML reads off, on): without it, and with the ratio of the recipe.
        recipes: name -> settings of that recipe alone. One that is called paper or default starts from these; another
            may say `recipe:`.
        settings: of every run, as in a training config; those of a recipe go over them.
        parallel: runs at a time, each with its share of the accelerators; 0 is one for each accelerator, on a CPU one.
    """

    out: str = ""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    proxies: ProxiesConfig = field(default_factory=ProxiesConfig)
    splits: tuple[str, ...] = ("fold:1/5", "fold:2/5", "fold:3/5", "fold:4/5", "fold:5/5")
    seeds: tuple[Annotated[int, SEED], ...] = (0,)
    labels: tuple[str, ...] = LABELS
    dime_aug: tuple[bool, ...] = (False, True)
    recipes: dict[str, Any] = field(default_factory=lambda: {"paper": {}, "default": {}})
    settings: dict[str, Any] = field(default_factory=dict)
    parallel: Annotated[int, Range(0, 1000)] = 0

    @property
    def journal(self) -> Path:
        """The file of the synthetic votes."""
        return Path(self.proxies.journal or Path(self.out) / "journal.jsonl")

    def data(self, split: str) -> Path:
        """The dataset directory of a split."""
        return Path(self.out) / "data" / slug(split)


@dataclass(frozen=True)
class Arm:
    """One way to train; a row of the tables."""

    recipe: str
    labels: str
    dime_aug: bool

    @property
    def name(self) -> str:
        """For instance `default-combined-dime`; the last part only with DiME-Aug."""
        return "-".join([self.recipe, self.labels, *(["dime"] if self.dime_aug else [])])


@dataclass(frozen=True)
class Trial:
    """One run: an arm on one split with one seed."""

    arm: Arm
    split: str
    seed: int
    config: Config = field(repr=False)

    @property
    def name(self) -> str:
        """Of its run directory."""
        return f"{self.arm.name}-{slug(self.split)}-seed{self.seed}"


def load_experiment(path: str | Path, overrides: Sequence[str] = (), out: Path | None = None) -> Experiment:
    """Read an experiment and check all that can be checked before anything is written.

    Args:
        path: the YAML file.
        overrides: `section.key=value` on top of it, for instance `settings.model.checkpoint=DIR`.
        out: instead of the file's.

    Raises:
        UserError: an unknown key, a wrong value, an empty or doubled axis of the grid.
    """
    settings, where = read_settings(path, overrides)
    experiment = build(Experiment, settings | ({"out": str(out)} if out else {}), where)
    if not experiment.out:
        raise UserError(f"{where}: out is not set; add it, or name a directory with --out.")
    if not experiment.corpus.name:
        raise UserError(f"{where}: corpus.name is not set; it names the reader, as `aer-jax prepare --corpus` does.")
    for axis in ("splits", "seeds", "labels", "dime_aug", "recipes"):
        values = list(getattr(experiment, axis))
        if not values or len(set(values)) < len(values):
            raise UserError(f"{where}: {axis} must name at least one value, and each once.")
    if unknown := set(experiment.labels) - set(LABELS):
        raise UserError(f'{where}: labels names "{min(unknown)}"; known: {", ".join(LABELS)}.')
    for name in experiment.recipes:
        if not re.fullmatch(r"[\w.+]+", str(name)):
            raise UserError(f'{where}: the recipe name "{name}" becomes part of file names; use letters and digits.')
    trials(experiment, where)
    return experiment


def arms(experiment: Experiment) -> list[Arm]:
    """The rows, recipe by recipe."""
    grid = itertools.product(experiment.recipes, experiment.dime_aug, experiment.labels)
    return [Arm(recipe, labels, dime_aug) for recipe, dime_aug, labels in grid]


def trials(experiment: Experiment, where: str = "the experiment") -> list[Trial]:
    """All runs; those of one seed and split follow each other, so that arms can soon be compared.

    Raises:
        UserError: settings that no run can have.
    """
    all_trials = []
    for seed, split, arm in itertools.product(experiment.seeds, experiment.splits, arms(experiment)):
        own = experiment.recipes[arm.recipe] or {}
        if not isinstance(own, dict):
            raise UserError(f"{where}: recipes.{arm.recipe} is a section; write its keys below it.")
        base = {"recipe": arm.recipe} if arm.recipe in RECIPES else {}
        settings = merge(merge(base, experiment.settings), own)
        fixed: dict[str, Any] = {
            "seed": seed,
            "data": {"dataset": str(experiment.data(split))},
            "labels": {"source": arm.labels},
        }
        if arm.labels != "human":
            fixed["labels"]["journal"] = str(experiment.journal)
        if not arm.dime_aug:
            fixed["data"]["dime_aug"] = {"ratio": 0.0}
        trial = Trial(arm, split, seed, make_config(merge(settings, fixed), f"{where}, {arm.name}"))
        if arm.dime_aug and trial.config.data.dime_aug.ratio == 0:
            raise UserError(f"{where}, {arm.name}: data.dime_aug.ratio is 0, so DiME-Aug cannot be on.")
        path = Path(experiment.out) / "runs" / trial.name
        all_trials.append(dataclasses.replace(trial, config=dataclasses.replace(trial.config, out=str(path))))
    return all_trials


def slug(split: str) -> str:
    """A split as a part of a file name: `fold:2/5` is fold2of5."""
    return re.sub(r"[^\w.+]", "", split.replace("/", "of"))
