"""Settings: recipes below the file, the file below the command line, and a sentence for every mistake."""

import dataclasses
import re
import types
import typing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aer_jax.config import RECIPES, Config, LoraConfig, load_config, to_yaml
from aer_jax.errors import UserError
from aer_jax.training.check import check

# Each line stands for ten of the line before it: 10^9 values.
BOMB = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))


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
        ("train.epochs=" + "9" * 4000, "train.epochs is a number of more than 30 digits; it must lie between"),
        ("train.epochs=0x" + "f" * 5000, "train.epochs must be int, not '0xfff"),
        ("model.adapter=" + "9" * 4000, "model.adapter must be str, not 999"),
        ("seed=!!int", 'the value of "seed=!!int" is not valid YAML'),
        ("train.epoch=3", 'unknown key "train.epoch". Did you mean "epochs"? Known here: epochs, batch'),
        ("trian.epochs=3", 'unknown key "trian". Did you mean "train"?'),
        ("zzz=3", 'unknown key "zzz". Known here: out, recipe'),
        ("lr=1", 'unknown key "lr". Did you mean "train.lr"? Known here: out, recipe'),
        ("optimizer.lr=1", 'unknown key "optimizer". Did you mean "train.lr"?'),
        ("model.alpha=1", 'unknown key "model.alpha". Did you mean "model.lora.alpha"?'),
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
        ("out=2024", "out must be str, not 2024; where it is meant as text, put it in quotes: '\"2024\"'"),
        ("labels.journal=no", "labels.journal must be str, not False; where it is meant as text"),
        ("seed=010", "seed must be int, not '010'"),
        ("seed=1:30", "seed must be int, not '1:30'"),
        ("train.lr=2024-01-01", "train.lr must be float, not '2024-01-01'"),
        (f"train.lr={'9' * 400}", "train.lr must be float, not 9999"),
        (f"seed={'9' * 5000}", "is not valid YAML; quote it"),
        (f"out={'[' * 5000}", "is not valid YAML; quote it"),
        ("out=!!python/object:os.system x", "is not valid YAML; quote it"),
        ('out="a\\0b"', "out holds a zero byte"),
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
        (
            "out: a\ntrain:\n\tlr: 1",
            "is not valid YAML: found character '\\t' that cannot start any token, line 3, column 1",
        ),
        ("train: {epochs: 3}\nseed: 1\ntrain: {lr: 1}", 'the key "train" stands twice, on lines 1 and 3; keep one.'),
        ("train: {lr: 1, lr: 2}", 'the key "lr" stands twice, on line 1; keep one.'),
        ("train: &a {lr: *a}", "an alias on line 1 holds itself"),
        ("[" * 3000, "it is nested too deeply"),
        (BOMB, "it holds more than 10,000 values, or its aliases stand for more"),
        ("seed: !!timestamp 2024-13-45", "run.yaml is not valid YAML: could not determine a constructor"),
        ("seed: !!int x", "run.yaml is not valid YAML: a value cannot be read"),
        ("---\nseed: 1\n---\nseed: 2", "is not valid YAML: but found another document, line 3"),
        ("é".encode("latin-1"), "is not valid YAML: it is not UTF-8 text; save it as UTF-8."),
        ("# x\n" * 2**19, "is larger than a megabyte, so it is no config"),
    ],
)
def test_mistakes_in_the_file(write, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        load_config(write(text))


def test_text_is_read_as_it_looks(write):
    """PyYAML reads these as a date, as 8, as 90 and as a number with the first of two values."""
    config = load_config(write("out: 2024-01-01\ndata: {dataset: 010}\nmodel: {checkpoint: 1:30}\nseed: 0x10"))
    assert (config.out, config.data.dataset, config.model.checkpoint, config.seed) == ("2024-01-01", "010", "1:30", 16)
    assert load_config(write("\ufefftrain: &a {lr: 1.5e+1}\n")).train.lr == 15


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        ("seed", "-1 2147483648", "between 0 and 2147483647"),
        ("labels.synthetic_weight", "-1 .nan nan .inf 1e30", "between 0 and 1e+06"),
        ("labels.prior_votes", "-0.1 nan inf", "between 0 and 1e+06"),
        ("data.max_seconds", "0.01 -1 0 31 nan", "between 0.1 and 30 s"),
        ("data.shapes", "-1 1000000", "between 0 and 100"),
        ("data.augment", "-0.1 1.1 nan", "between 0 and 1"),
        ("data.dime_aug.ratio", "-0.1 1.1 nan", "between 0 and 1"),
        ("data.dime_aug.neighbours", "0 -3 1000000", "between 1 and 1000"),
        ("model.lora.rank", "0 -8 1000000000", "between 1 and 4096"),
        ("model.lora.alpha", "nan 0 -1 1e300", "above 0 and at most 100000"),
        ("model.lora.dropout", "1 -0.1 nan", "between 0 and 0.99"),
        ("train.epochs", "-1 1000000000", "between 0 and 100000"),
        ("train.batch", "0 -8 1000000000", "between 1 and 1000000"),
        ("train.microbatch", "0 -8", "between 1 and 1000000"),
        ("train.lr", "-1e-4 inf nan 1e3", "between 0 and 100"),
        ("train.head_lr", "-1e-4 inf nan 1e30", "between 0 and 100"),
        ("train.weight_decay", "-1 nan inf", "between 0 and 100"),
        ("train.warmup", "1.5 -0.1 nan", "between 0 and 1"),
        ("train.clip_norm", "0 -1 nan inf", "above 0 and at most 1e+09"),
        ("train.entropy_weight", "-0.08 nan inf", "between 0 and 100"),
        ("train.patience", "0 -1", "between 1 and 100000"),
        ("train.checkpoint_minutes", "nan -1 inf", "between 0 and 100000"),
        ("mesh.data", "0 -2", "between 1 and 1048576, or be -1"),
        ("mesh.fsdp", "0 -2", "between 1 and 1048576, or be -1"),
        ("mesh.tensor", "0 10000000000", "between 1 and 1048576, or be -1"),
    ],
)
def test_numbers_out_of_range(key, values, allowed):
    for value in values.split():
        with pytest.raises(UserError, match=re.escape(f"it must lie {allowed}.")):
            load_config(None, [f"{key}={value}"])


def leaves(cls, prefix=""):
    """(key, type hint) of every setting."""
    for key, kind in typing.get_type_hints(cls, include_extras=True).items():
        nested = dataclasses.is_dataclass(kind)
        yield from leaves(kind, f"{prefix}{key}.") if nested else [(f"{prefix}{key}", kind)]


def test_every_number_has_a_range():
    for key, kind in leaves(Config):
        bare = [kind] if typing.get_origin(kind) is not types.UnionType else typing.get_args(kind)
        assert int not in bare and float not in bare, key


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.lora.targets=['(']"], 'model.lora.targets: "(" is no regular expression'),
        (["train.batch=8", "train.microbatch=3"], "train.batch 8 must be a multiple of train.microbatch 3"),
        (["mesh.data=-1", "mesh.fsdp=-1"], "mesh: -1 stands for all devices that are left"),
        (["train.epochs=0", "model.head=paper"], "train.epochs is 0, which fits a readout"),
    ],
)
def test_settings_that_do_not_fit_each_other(settings, said):
    given = ["out=r", "data.dataset=d", "model.checkpoint=c"]
    check(load_config(None, given))
    with pytest.raises(UserError, match=re.escape(said)):
        check(load_config(None, [*given, *settings]))


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("train: {epochs: 3}\n")
    for override in ("train.epoch=1", "train.epochs=none", "labels.source=humans"):
        with pytest.raises(UserError, match=r"^the command line: "):
            load_config(file, [override])
    file.write_text("train: {epoch: 3}\n")
    with pytest.raises(UserError, match=f"^{file}: unknown key"):
        load_config(file, ["seed=1"])


def test_settings_made_in_python_have_their_ranges():
    config = load_config(None, ["out=r", "data.dataset=d", "model.checkpoint=c"])
    with pytest.raises(UserError, match=r"data\.max_seconds is nan"):
        check(dataclasses.replace(config, data=dataclasses.replace(config.data, max_seconds=float("nan"))))


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
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0\x85\u2028\u2029"), max_size=12)
    rate = st.floats(0, 100)
    return st.fixed_dictionaries(
        {
            "out": text,
            "recipe": st.sampled_from(["default", "paper"]),
            "seed": st.integers(0, 2**31 - 1),
            "labels": st.fixed_dictionaries(
                {}, optional={"journal": st.none() | text, "synthetic_weight": rate | st.just("learned")}
            ),
            "data": st.fixed_dictionaries(
                {}, optional={"transcript": st.booleans(), "max_seconds": st.floats(0.1, 30)}
            ),
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
