import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aer_jax.corpora.base import Clip, Corpus, Waveform
from aer_jax.data.audio.read import to_16k
from aer_jax.data.dataset import open_dataset
from aer_jax.data.preparation.prepare import prepare
from aer_jax.errors import UserError
from aer_jax.files.content_hash import file_sha256, seal
from aer_jax.labels.votes import Vote

TEXTS = ("utterances.jsonl", "votes.jsonl", "splits.json")
RATES = (8000, 16_000, 44_100)


@pytest.fixture
def made(tmp_path):
    """Three clips of three speakers at three rates, and what was put in, on the 16-bit grid."""
    rng = np.random.default_rng(0)
    clips = [
        Clip(
            f"u{i}",
            f"s{i}",
            Waveform((rng.integers(-9000, 9000, rate // 2) / 32768).astype(np.float32), rate),
            (Vote(f"u{i}", "glad", "r1"), Vote(f"u{i}", "sad", "r2", 0.5)),
            "Grüße",
        )
        for i, rate in enumerate(RATES)
    ]
    return prepare(Corpus("little", ("glad", "sad"), ("glad", "sad"), clips, licensed=True), tmp_path / "d"), clips


def test_opened_as_prepared(made):
    dataset, clips = made
    assert (dataset.name, dataset.classes, dataset.licensed) == ("little", ("glad", "sad"), True)
    assert list(dataset.utterances) == ["u0", "u1", "u2"]
    assert dataset.utterances["u1"].transcript == "Grüße"
    assert list(dataset.votes) == [vote for clip in clips for vote in clip.votes]
    assert sorted(dataset.splits) == ["test", "train", "validation"]


def test_audio_is_what_went_in_at_16k(made):
    dataset, clips = made
    again = pickle.loads(pickle.dumps(dataset))
    for clip in clips:
        audio = dataset.audio(clip.id)
        assert audio.dtype == np.float32 and abs(len(audio) - 8000) <= 1
        assert np.array_equal(audio, to_16k(clip.audio))
        assert np.array_equal(audio, again.audio(clip.id))
    with pytest.raises(UserError, match="has no utterance u9"):
        dataset.audio("u9")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_no_dataset_is_said(made, tmp_path):
    dataset, _ = made
    with pytest.raises(UserError, match=r"is not a dataset \(it has no dataset.json\)"):
        open_dataset(tmp_path)
    edit(dataset.path / "dataset.json", format=2)
    with pytest.raises(UserError, match=r"has dataset format 2, this version reads 1"):
        open_dataset(dataset.path)
    (dataset.path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*dataset.json"):
        open_dataset(dataset.path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("votes.jsonl", '{"utterance"', "votes.jsonl, line 1 is not JSON"),
        ("votes.jsonl", "{}", "is damaged"),
        ("utterances.jsonl", '{"id": "u0"}', "is damaged"),
        ("utterances.jsonl", "[1]", "is damaged"),
        ("splits.json", '{"train": []}', "is damaged"),
        ("splits.json", "[]", "does not hold a JSON object"),
    ],
)
def test_damage_is_one_sentence(made, file, text, message):
    dataset, _ = made
    (dataset.path / file).write_text(text + "\n")
    with pytest.raises(UserError, match=message):
        open_dataset(dataset.path)


def test_shared_speakers_are_refused_on_reading(made):
    dataset, _ = made
    lines = (dataset.path / "utterances.jsonl").read_text().replace('"s1"', '"s0"')
    (dataset.path / "utterances.jsonl").write_text(lines)
    with pytest.raises(UserError, match="speaker s0 into both"):
        open_dataset(dataset.path)


def reseal(folder):
    """Digests of the text files as they are now, so that what they hold is read and not only that they changed."""
    about = json.loads((folder / "dataset.json").read_text())
    about["sha256"] |= {name: file_sha256(folder / name) for name in TEXTS}
    (folder / "dataset.json").write_text(json.dumps(seal(about)))


def test_a_swapped_record_is_noticed(made):
    dataset, _ = made
    lines = (dataset.path / "utterances.jsonl").read_text()
    (dataset.path / "utterances.jsonl").write_text(lines.replace('"row": 0', '"row": 1'))
    reseal(dataset.path)
    with pytest.raises(UserError, match="holds u1 where u0 should be"):
        open_dataset(dataset.path).audio("u0")


@pytest.mark.parametrize(
    ("file", "was", "becomes", "words"),
    [
        ("votes.jsonl", '"r1"', '"r3"', "votes.jsonl is not what was written; .*prepare it again"),
        ("utterances.jsonl", "Grüße", "Grüsse", "utterances.jsonl is not what was written"),
        ("splits.json", '"seed": 0', '"seed": 1', "splits.json is not what was written; .*--split"),
        ("dataset.json", '"glad"', '"gladly"', "dataset.json is not what was written"),
        ("dataset.json", '"sha256": {', '"sha256": {"x": "", ', "dataset.json is not what was written"),
    ],
)
def test_a_text_file_that_changed_is_noticed_on_opening(made, file, was, becomes, words):
    dataset, _ = made
    path = dataset.path / file
    path.write_text(path.read_text().replace(was, becomes, 1))
    with pytest.raises(UserError, match=words):
        open_dataset(dataset.path)


def test_a_shard_of_another_size_is_noticed_on_opening(made):
    dataset, _ = made
    with next(dataset.path.glob("*.array_record")).open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="array_record is not what was written; copy the dataset again"):
        open_dataset(dataset.path)


def test_datasets_of_older_versions_are_opened(made):
    """Before `dataset.json` had a digest and the sizes of the shards."""
    dataset, _ = made
    about = json.loads((dataset.path / "dataset.json").read_text())
    del about["digest"], about["bytes"]
    (dataset.path / "dataset.json").write_text(json.dumps(about))
    assert open_dataset(dataset.path) == dataset
    (dataset.path / "votes.jsonl").write_text((dataset.path / "votes.jsonl").read_text().replace("r1", "r3"))
    with pytest.raises(UserError, match=r"votes\.jsonl is not what was written"):
        open_dataset(dataset.path)


@pytest.mark.parametrize(
    ("file", "was", "becomes", "words"),
    [
        ("votes.jsonl", '"u0"', '["u0"]', r"line 1 is damaged \(utterance is a list, not text"),
        ("votes.jsonl", '"u0"', '"u9"', "there is no utterance 'u9'"),
        ("votes.jsonl", '"weight": 1.0', '"weight": -1', "weight is -1, not a number from 0"),
        ("votes.jsonl", '"weight": 1.0', '"weight": "1"', "weight is '1', not a number"),
        ("votes.jsonl", '"weight": 1.0', '"weight": NaN', "line 1 is not JSON .NaN is not a number"),
        ("votes.jsonl", '"weight": 1.0', '"weight": 1e999', "weight is inf, not a number"),
        ("votes.jsonl", '"weight": 1.0', '"weight": 1' + 400 * "0", "weight is a huge number, not a number"),
        ("votes.jsonl", '"weight": 1.0', '"weight": ' + 5000 * "9", "line 1 is not JSON"),
        ("votes.jsonl", '"weight": 1.0', '"weight": ' + 10_000 * "[", "nested too deeply"),
        ("votes.jsonl", '"r1"', '"\\ud800"', "half a surrogate pair"),
        ("utterances.jsonl", '"u1"', '"u0"', "the id 'u0' is used already"),
        ("utterances.jsonl", '"u1"', "1", "line 2 is damaged .id is 1, not text"),
        ("utterances.jsonl", '"shard": 0', '"shard": 7', "there is no shard 7"),
        ("utterances.jsonl", '"seconds": 0.5', '"seconds": "0.5"', "seconds is '0.5'"),
        ("utterances.jsonl", '"row": 0', '"row": true', "row is True"),
        ("splits.json", '"train": [', '"train": [["u9"],', "train is a list, not a list of texts"),
        ("splits.json", '"train": [', '"train": ["u9",', "names u9 but the dataset has no such utterance"),
        ("splits.json", '"speakers_apart": true', '"speakers_apart": "no"', "speakers_apart is 'no'"),
        ("dataset.json", '"licensed": true', '"licensed": "no"', "licensed is 'no', not true or false"),
        ("dataset.json", '"format": 1', '"format": [1]', "dataset format a list"),
        ("dataset.json", '"glad",', '"sad",', "its classes must be two at least, each named once"),
        ("dataset.json", '"shards": 1', '"shards": -1', "shards is -1"),
        ("dataset.json", '"settings": {', '"settings": ' + 10_000 * '{"a":', "nested too deeply"),
    ],
)
def test_values_of_other_types_are_one_sentence(made, file, was, becomes, words):
    dataset, _ = made
    path = dataset.path / file
    text = path.read_text()
    assert was in text
    path.write_text(text.replace(was, becomes, 1))
    if file in TEXTS:
        reseal(dataset.path)
    with pytest.raises(UserError, match=words) as error:
        open_dataset(dataset.path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_line_separator_inside_a_text_does_not_end_the_line(made):
    dataset, _ = made
    path = dataset.path / "utterances.jsonl"
    path.write_text(path.read_text().replace("Grüße", "Grü\u2028\x85ße"))
    reseal(dataset.path)
    assert open_dataset(dataset.path).utterances["u0"].transcript == "Grü\u2028\x85ße"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["u0", "s0", "glad", "u9"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_dataset_with_any_value_anywhere_opens_or_is_one_sentence(made, data):
    """One value of one file replaced by any other, digests made to fit; or bytes of a file replaced by any others."""
    dataset, _ = made
    name = data.draw(st.sampled_from([*TEXTS, "dataset.json"]))
    path = dataset.path / name
    before = {file: (dataset.path / file).read_bytes() for file in [*TEXTS, "dataset.json"]}
    try:
        if data.draw(st.booleans()):
            content = before[name]
            at = data.draw(st.integers(0, len(content)))
            path.write_bytes(content[:at] + data.draw(st.binary(max_size=8)) + content[at + 2 :])
        else:
            lines = before[name].decode().split("\n")[:-1] if name.endswith("l") else [before[name].decode()]
            n = data.draw(st.integers(0, len(lines) - 1))
            value = json.loads(lines[n])
            value[data.draw(st.sampled_from(sorted(value)))] = data.draw(JSON)
            lines[n] = json.dumps(value)
            path.write_text("\n".join(lines) + "\n")
            if name != "dataset.json":
                reseal(dataset.path)
            elif isinstance(value.get("sha256"), dict):
                path.write_text(json.dumps(seal(value)))
        try:
            opened = open_dataset(dataset.path)
            assert opened.path == dataset.path
        except UserError as error:
            assert str(dataset.path) in str(error) and len(str(error)) < 500
    finally:
        for file, content in before.items():
            (dataset.path / file).write_bytes(content)
