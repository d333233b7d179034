"""What Python may hand over: any usual form of samples, and a sentence in the place of what is no audio."""

import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from aer_jax.data.audio.read import BadAudio
from aer_jax.errors import UserError
from aer_jax.inference.inputs import is_many, read_inputs
from aer_jax.inference.windows import windowing

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
STEPS = np.rint(NOISE * 32768).astype(np.int16)


def read(audio, rate=None, transcript=""):
    return read_inputs(audio, rate, transcript, Counter())


@pytest.mark.parametrize(
    "audio",
    [
        (NOISE, RATE),
        (RATE, STEPS),
        (STEPS.astype(np.int32) * 65536, np.int64(RATE)),
        (np.stack([NOISE, NOISE]), RATE),
        (np.stack([NOISE, NOISE], axis=1), RATE),
        (NOISE[None], float(RATE)),
        (NOISE.tolist(), RATE),
        (np.stack([NOISE, -NOISE]), RATE),
        {"array": NOISE, "sampling_rate": RATE, "path": None},
        {"array": NOISE.tolist(), "sampling_rate": RATE},
        {"audio": {"array": NOISE, "sampling_rate": RATE}, "label": 3},
        {"Audio": NOISE, "rate": RATE},
        NOISE.astype(np.float64),
        STEPS,
        STEPS.astype(">i2"),
    ],
)
def test_samples_in_any_form(audio):
    assert not is_many(audio)
    (source,) = read(audio, rate=RATE)
    assert source.content.rate == RATE
    np.testing.assert_allclose(source.content.samples, NOISE, atol=1 / 32768)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int16"])
def test_tensors(kind):
    torch = pytest.importorskip("torch")
    tensor = torch.tensor(STEPS if kind == "int16" else NOISE).to(getattr(torch, kind))
    tensor.requires_grad = kind != "int16"
    (source,) = read(tensor, rate=RATE)
    np.testing.assert_allclose(source.content.samples, NOISE, atol=3e-3)


def test_a_rate_belongs_to_samples():
    (source,) = read({"array": NOISE, "sampling_rate": 8000}, rate=RATE)
    assert source.content.rate == 8000
    assert "rate is None" in str(read(NOISE)[0].content)  # and `predict` raises it, see test_api
    first, second = read([NOISE, (NOISE, RATE)])
    assert "rate is None" in str(first.content) and second.content.rate == RATE


@pytest.mark.parametrize("content", [io.BytesIO(b"RIFF\n1"), memoryview(b"RIFF\n1"), b"RIFF\n1"])
def test_an_open_file_is_one_recording(content):
    assert not is_many(content)
    assert read(content)[0].content == b"RIFF\n1"


@pytest.mark.parametrize("transcript", [3, None, ["a", None], "\ud83d"])
def test_words_are_text(transcript):
    with pytest.raises(UserError, match="transcript "):
        read(["a.wav", "b.wav"], transcript=transcript)


@pytest.mark.parametrize(("window", "hop"), [("2", None), (2, "1"), (True, None)])
def test_lengths_are_numbers(window, hop):
    with pytest.raises(UserError, match="seconds as a number"):
        windowing(window, hop)


@pytest.mark.parametrize("rate", [float("nan"), 16_000.5, float("inf")])
def test_rates_are_whole(rate):
    assert "say how many samples a second" in str(read((NOISE, rate))[0].content)


@pytest.mark.parametrize(
    "audio",
    [
        pd.DataFrame({"Path": ["a.wav", "b.wav"], "text": ["one", "two"]}),
        [{"file": "a.wav", "transcript": "one"}, {"file": "b.wav", "transcript": "two"}],
        ({"audio": name, "sentence": text} for name, text in [("a.wav", "one"), ("b.wav", "two")]),
    ],
)
def test_rows_of_a_table(audio):
    assert [(source.name, source.transcript) for source in read(audio)] == [("a.wav", "one"), ("b.wav", "two")]


@pytest.mark.parametrize("audio", [("a.wav", "b.wav"), pd.Series(["a.wav", "b.wav"]), np.array(["a.wav", "b.wav"])])
def test_several_paths(audio):
    assert is_many(audio)
    assert [(one.name, one.transcript) for one in read(audio, transcript=["x", "y"])] == [
        ("a.wav", "x"),
        ("b.wav", "y"),
    ]


def test_bytes_of_an_undecoded_clip():
    (source,) = read({"bytes": b"RIFF", "path": "a.wav"})
    assert source.content == b"RIFF"


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (None, "audio 0 is None; give a path"),
        (3.5, "audio 0 is float 3.5"),
        ({"label": "happy"}, "audio 0 has the keys label"),
        ({"file": float("nan")}, "audio 0 is float nan"),
        ({"array": NOISE, "sampling_rate": None}, "rate is None"),
        ((NOISE, 0), "a sample rate of 0 Hz"),
        ((NOISE.astype(np.int64), RATE), "int64"),
        ((NOISE > 0, RATE), "bool"),
        ((np.zeros((300, 400)), RATE), r"\[400, 300\]"),
        ((np.zeros((2, 2, 2)), RATE), r"\[2, 2, 2\]"),
        (([[1.0], [1.0, 2.0]], RATE), "not an array of samples"),
    ],
)
def test_what_is_no_audio_keeps_its_place(audio, words):
    first, second = read([audio, "b.wav"], rate=RATE)
    assert second.name == "b.wav" and first.seconds() is None
    with pytest.raises(BadAudio, match=words) as error:
        first.read()
    assert "\n" not in str(error.value) and "--" not in str(error.value)


def test_a_list_of_numbers_is_no_list_of_recordings():
    with pytest.raises(UserError, match="a list of 16000 numbers; give samples as an array"):
        read(NOISE.tolist(), rate=RATE)
