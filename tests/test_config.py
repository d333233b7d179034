"""Settings: recipes below the file, the file below the command line, and a sentence for every mistake."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aer_jax.config import RECIPES, Config, LoraConfig, load_config, to_yaml
from aer_jax.errors import UserError


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "run.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_nothing_given_is_the_default_recipe(write):
    assert load_config(None) == load_config(write("")) == Config()


def test_overrides_beat_the_file_and_the_file_beats_the_recipe(write):
    path = write("recipe: paper\ntrain: {epochs: 7, lr: 1e-4}\ndata:\n  dime_aug: {neighbours: 5}\n")
    config = load_config(path, ["train.lr=3e-5", "labels.journal=votes.jsonl", "data.dime_aug.ratio=0"])
    assert (config.train.epochs, config.train.lr) == (7, 3e-5)
    assert (config.train.head_lr, config.train.batch, config.model.head) == (2.5e-6, 64, "paper")
    assert (config.data.dime_aug.neighbours, config.data.dime_aug.ratio) == (5, 0)
    assert config.labels.journal == "votes.jsonl"
    assert load_config(path, ["labels.journal=null"]).labels.journal is None


def test_a_recipe_may_come_from_the_command_line():
    config = load_config(None, ["recipe=paper"])
    assert config.data.speaker and config.train.entropy_weight == 0.08 and config.train.epochs == 60
    assert RECIPES["paper"]["train"]["epochs"] == 60, "loading must not change the recipe"


def test_paper_recipe_is_the_published_one():
    config = load_config(None, ["recipe=paper"])
    assert config.model.lora == LoraConfig(rank=8, alpha=16.0, dropout=0.2)
    assert (config.train.batch, config.train.microbatch, config.train.lr) == (64, 8, 2.5e-6)
    assert (config.train.weight_decay, config.train.warmup, config.train.clip_norm) == (0.03, 0.15, 3.0)
    assert (config.data.augment, config.data.dime_aug.ratio, config.train.patience) == (0.3, 0.3, 8)


def test_numbers_and_lists_are_converted():
    config = load_config(None, ["train.lr=1e-4", "data.max_seconds=12", "model.lora.targets=[a, b]"])
    assert config.train.lr == 1e-4 and isinstance(config.train.lr, float)
    assert config.data.max_seconds == 12.0 and isinstance(config.data.max_seconds, float)
    assert config.model.lora.targets == ("a", "b")
    assert load_config(None, ["model.lora.targets=a"]).model.lora.targets == ("a",)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epoch=3", 'unknown key "train.epoch". Did you mean "epochs"? Known here: epochs, batch'),
        ("trian.epochs=3", 'unknown key "trian". Did you mean "train"?'),
        ("zzz=3", 'unknown key "zzz". Known here: out, recipe'),
        ("train.epochs=many", "train.epochs must be int, not 'many'"),
        ("train.epochs=1.5", "train.epochs must be int, not 1.5"),
        ("train.epochs=true", "train.epochs must be int, not True"),
        ("train.lr=fast", "train.lr must be float, not 'fast'"),
        ("train.lr=true", "train.lr must be float, not True"),
        ("train.lr=null", "train.lr must be float, not None"),
        ("data.transcript=1", "data.transcript must be bool, not 1"),
        ("out=5", "out must be str, not 5"),
        ("model.lora.targets=[1]", "model.lora.targets must be str, not 1"),
        ("labels.journal=[a]", "labels.journal must be str, not ['a']"),
        ("model.head=best", 'model.head is "best"; it must be one of paper, readout'),
        ("recipe=papper", 'recipe is "papper"; it must be one of default, paper'),
        ("recipe=[paper]", "it must be one of default, paper"),
        ("train=3", "train is a section; write its keys below it"),
        ("out.x=3", "out must be str, not {'x': 3}"),
        ("train.epochs.x=3", "train.epochs must be int"),
        ("train.epochs", '"train.epochs" is not an override; write section.key=value'),
        ("out=[", 'the value of "out=[" is not valid YAML; quote it'),
    ],
)
def test_mistakes_on_the_command_line(override, said):
    with pytest.raises(UserError, match=re.escape(said)):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: [", "run.yaml is not valid YAML"),
        (b"\xff\xfe\x00", "run.yaml is not valid YAML"),
        ("just words", "must hold `key: value` lines, not str"),
        ("- a\n- b\n", "must hold `key: value` lines, not list"),
        ("train:\n", "train is a section; write its keys below it"),
        ("train: {epoch: 3}", 'run.yaml: unknown key "train.epoch". Did you mean "epochs"?'),
        ("model: {lora: {rnk: 3}}", 'unknown key "model.lora.rnk". Did you mean "rank"?'),
        ("3: x", 'unknown key "3"'),
    ],
)
def test_mistakes_in_the_file(write, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        load_config(write(text))


def test_a_weight_is_a_number_or_learned():
    assert load_config(None, ["labels.synthetic_weight=learned"]).labels.synthetic_weight == "learned"
    assert load_config(None, ["labels.synthetic_weight=5e-1"]).labels.synthetic_weight == 0.5
    for text in ("lerned", "[1]"):
        with pytest.raises(UserError, match=r"labels.synthetic_weight"):
            load_config(None, [f"labels.synthetic_weight={text}"])


def test_a_value_is_no_section(write):
    with pytest.raises(UserError, match=r'"train.lr": train is a value, not a section'):
        load_config(write("train: 3"), ["train.lr=1"])


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the config .*none.yaml: No such file or directory"):
        load_config(tmp_path / "none.yaml")


def overrides():
    """Any value that a key may hold."""
    text = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), max_size=12)
    rate = st.floats(0, 1e6, allow_nan=False)
    return st.fixed_dictionaries(
        {
            "out": text,
            "recipe": st.sampled_from(["default", "paper"]),
            "seed": st.integers(-(2**31), 2**31),
            "labels": st.fixed_dictionaries(
                {}, optional={"journal": st.none() | text, "synthetic_weight": rate | st.just("learned")}
            ),
            "data": st.fixed_dictionaries({}, optional={"transcript": st.booleans(), "max_seconds": rate}),
            "train": st.fixed_dictionaries({}, optional={"lr": rate, "batch": st.integers(1, 999)}),
            "model": st.fixed_dictionaries(
                {}, optional={"lora": st.fixed_dictionaries({"targets": st.lists(text, max_size=3)})}
            ),
        }
    )


@settings(max_examples=60)
@given(overrides())
def test_what_is_written_is_read_back(tmp_path_factory, chosen):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(chosen))
    config = load_config(path)
    path.write_text(to_yaml(config))
    assert load_config(path) == config
    assert config.out == chosen["out"] and config.seed == chosen["seed"]
