"""The five functions, as their own examples and docs/api.md show them; and what `import aer_jax` costs."""

import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy_runs

import aer_jax
from aer_jax import api
from aer_jax.errors import UserError

DOCS = Path(__file__).parents[1] / "docs" / "api.md"
MANIFEST = """id,audio,speaker,transcript,votes
a1,clips/a1.wav,anna,See you tomorrow.,happy;happy;neutral
a2,clips/a2.wav,ben,Leave it.,happy:3;neutral:1
a3,clips/a3.wav,cleo,Leave it.,neutral
a4,clips/a4.wav,dora,Well.,neutral;happy
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with what the examples name."""
    here = tmp_path_factory.mktemp("place")
    (here / "runs").mkdir()
    (here / "data").mkdir()
    (here / "clips").mkdir()
    shutil.copytree(toy_runs.trained_run(), here / "runs" / "toy")
    (here / "data" / "toy").symlink_to(toy_runs.toy_dataset())
    rng = np.random.default_rng(0)
    for i in range(1, 5):
        soundfile.write(here / "clips" / f"a{i}.wav", rng.normal(0, 0.1, 16_000), 16_000)
    (here / "my.csv").write_text(MANIFEST)
    return here


def globs():
    return {
        "aer_jax": aer_jax,
        "CHECKPOINT": toy_runs.CHECKPOINT,
        "samples": np.random.default_rng(0).normal(0, 0.1, 32_000),
    }


def run_doctest(test):
    assert test.examples
    said = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, said.append)
    assert not said, "\n".join(said)


@pytest.mark.parametrize("name", aer_jax.__all__)
def test_examples_of_the_functions(name, place, monkeypatch):
    monkeypatch.chdir(place)
    found = doctest.DocTestFinder(recurse=False).find(getattr(aer_jax, name), name, globs=globs())
    run_doctest(found[0])


def test_examples_of_the_model(place, monkeypatch):
    monkeypatch.chdir(place)
    run_doctest(doctest.DocTestFinder().find(api.Model.predict, "predict", globs=globs())[0])


def test_examples_of_the_page(place, monkeypatch):
    monkeypatch.chdir(place)
    run_doctest(doctest.DocTestParser().get_doctest(DOCS.read_text(), globs(), "docs/api.md", str(DOCS), 0))


def test_import_is_light():
    code = "import sys, time; t = time.perf_counter(); import aer_jax; t = time.perf_counter() - t; "
    code += "assert not {'jax', 'flax', 'torch', 'matplotlib', 'librosa'} & set(sys.modules); assert t < 1, t"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'predct'"):
        _ = aer_jax.predct
    assert set(aer_jax.__all__) <= set(dir(aer_jax))


@pytest.fixture(scope="module")
def model():
    return aer_jax.load(toy_runs.trained_run())


def test_a_path_bytes_and_samples_are_the_same_speech(model, place):
    file = place / "clips" / "a1.wav"
    samples, rate = soundfile.read(file)
    stereo = np.stack([samples, samples], axis=1)
    every = model.predict([file, str(file), file.read_bytes(), samples, stereo], rate=rate, transcript="Leave it.")
    assert [heard.file for heard in every] == [str(file), str(file), "bytes 2", "samples 3", "samples 4"]
    for heard in every[1:]:
        np.testing.assert_allclose(list(heard.probs.values()), list(every[0].probs.values()), atol=1e-5)
    alone = model.predict(file, transcript="Leave it.")
    np.testing.assert_allclose(list(alone.probs.values()), list(every[0].probs.values()), atol=1e-5)
    assert alone.label == max(alone.probs, key=alone.probs.get)


def test_a_bad_recording_costs_none_of_the_others(model, place):
    file = place / "clips" / "a1.wav"
    samples, rate = soundfile.read(file, dtype="int16")
    rows = [{"file": file}, "nowhere.wav", (samples, rate), None, {"array": samples, "sampling_rate": rate}]
    answers = model.predict(rows)
    assert [isinstance(answer, UserError) for answer in answers] == [False, True, False, True, False]
    assert "nowhere.wav" in str(answers[1]) and "audio 3 is None" in str(answers[3])
    for answer in (answers[2], answers[4]):
        np.testing.assert_allclose(list(answer.probs.values()), list(answers[0].probs.values()), atol=1e-4)


def test_messages_name_arguments(tmp_path):
    (tmp_path / "m.csv").write_text("audio,talker\na.wav,anna\n")
    with pytest.raises(UserError) as error:
        aer_jax.prepare("manifest", tmp_path / "out", tmp_path / "m.csv")
    assert "--" not in str(error.value) and 'map="speaker=COLUMN"' in str(error.value)
    with pytest.raises(UserError) as error:
        aer_jax.prepare("crema-d", tmp_path / "out")
    assert "--" not in str(error.value) and "say where with root" in str(error.value)


@pytest.mark.parametrize(
    ("audio", "options", "words"),
    [
        ("nowhere.wav", {}, "no audio file nowhere.wav"),
        (np.zeros(16_000), {"rate": 16_000}, "samples is silent"),
        (np.ones(16_000), {}, "rate is None"),
        (np.ones(16_000, np.int64), {"rate": 16_000}, "int64"),
        (np.ones(16_000), {"rate": 1}, "a sample rate of 1 Hz"),
        (None, {}, "audio is None"),
        ([0.1, 0.2], {"rate": 16_000}, "a list of 2 numbers"),
        (b"RIFF", {}, "cannot read bytes"),
        (["a.wav", "b.wav"], {"transcript": ["one"]}, "1 transcripts for 2 recordings"),
        (np.ones(16_000), {"rate": 16_000, "window": 31}, "the window is 31 s"),
        (np.ones(16_000), {"rate": 16_000, "window": 1, "hop": 2}, "the hop is 2 s"),
        (".", {}, "is a folder"),
    ],
)
def test_what_cannot_be_predicted(model, audio, options, words):
    with pytest.raises(UserError, match=words):
        model.predict(audio, **options)
