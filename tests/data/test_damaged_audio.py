"""Two hundred audio files, damaged or unusual: each is read right or named in the report, and prepare goes on."""

from __future__ import annotations

import json
import re
import struct
import wave
import zlib
from collections import Counter

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile

from aer_jax.corpora.base import Waveform
from aer_jax.corpora.manifest import reader as manifest
from aer_jax.data.audio.read import BadAudio, read_audio, to_16k
from aer_jax.data.preparation.prepare import prepare

EACH = 8
RATE = 16_000


def voice(rng, rate=RATE):
    """A buzz in syllables, 0.4 to 1.2 s, peak 0.6 or less."""
    t = np.arange(int(rng.uniform(0.4, 1.2) * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * k * rng.uniform(110, 120) * t + k) / k for k in range(1, 12))
    x = buzz * np.abs(np.sin(2 * np.pi * rng.uniform(2, 4) * t + 0.3)) + rng.normal(0, 0.02, len(t))
    return (0.6 * x / np.abs(x).max()).astype(np.float32)


def pcm16(x):
    return np.rint(x * 32767).astype(np.int16)


# ---- read right: (rng, path) -> what must be heard, its rate, how far a sample may be off ----


def eight_bit(rng, path):
    x = voice(rng)
    wavfile.write(path, RATE, np.rint(x * 127 + 128).astype(np.uint8))
    return x, RATE, 0.01


def sixteen_bit(rng, path):
    x = voice(rng)
    wavfile.write(path, RATE, pcm16(x))
    return x, RATE, 1e-4


def twenty_four_bit(rng, path):
    x = voice(rng)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 3, RATE, 0, "NONE", ""))
        file.writeframes(b"".join(struct.pack("<i", int(v))[:3] for v in np.rint(x * (2**23 - 1))))
    return x, RATE, 5e-5


def thirty_two_bit(rng, path):
    x = voice(rng)
    wavfile.write(path, RATE, np.rint(x.astype(np.float64) * (2**31 - 1)).astype(np.int32))
    return x, RATE, 5e-5


def float_samples(rng, path):
    x = voice(rng)
    wavfile.write(path, RATE, x)
    return x, RATE, 5e-5


def float_that_was_never_scaled(rng, path):
    x = voice(rng)
    wavfile.write(path, RATE, x * 30_000)
    return x / np.abs(x).max(), RATE, 5e-5


def seven_channels(rng, path):
    x = voice(rng)
    x_tc = x[:, None] * rng.uniform(0.2, 1.5, 7)
    wavfile.write(path, RATE, pcm16(x_tc))
    return x_tc.mean(axis=1), RATE, 1e-4


def ninety_six_khz(rng, path):
    x = voice(rng, 96_000)
    wavfile.write(path, 96_000, pcm16(x))
    return x, 96_000, 2e-4


def mp3_named_wav(rng, path):
    x = voice(rng)
    soundfile.write(path, x, RATE, format="MP3", subtype="MPEG_LAYER_III")
    return x, RATE, 0.1


def length_unknown(rng, path):
    x, rate, near = sixteen_bit(rng, path)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    return x, rate, near


# ---- named: (rng, path) -> the reasons that are true ----


def cut(rng, path, least=0.2, most=0.98):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * rng.uniform(least, most))])


def cut_wav(rng, path):
    sixteen_bit(rng, path)
    cut(rng, path)
    return {"audio cut short"}


def cut_seven_channels(rng, path):
    seven_channels(rng, path)
    cut(rng, path)
    return {"audio cut short"}


def cut_flac(rng, path):
    soundfile.write(path, voice(rng), RATE, format="FLAC")
    cut(rng, path)
    return {"audio cut short", "audio unreadable"}


def cut_elsewhere(rng, path):
    kinds = ["OGG", "MP3", "AIFF", "AU", "W64", "RF64", "CAF", "NIST"]
    soundfile.write(path, voice(rng), RATE, format=kinds[int(path.stem.rpartition("-")[2]) % len(kinds)])
    cut(rng, path, 0.6, 0.99)
    return {"audio cut short", "audio unreadable", "audio empty"}


def cut_header(rng, path):
    sixteen_bit(rng, path)
    path.write_bytes(path.read_bytes()[: int(rng.integers(1, 44))])
    return {"audio unreadable"}


def wrong_header(rng, path):
    sixteen_bit(rng, path)
    data = bytearray(path.read_bytes())
    place, form, value = [
        (22, "<H", 2), (22, "<H", 7), (24, "<I", 8000), (28, "<I", 12_345), (34, "<H", 8), (34, "<H", 24),
        (20, "<H", 99), (40, "<I", 4000),
    ][int(path.stem.rpartition("-")[2]) % 8]  # fmt: skip
    struct.pack_into(form, data, place, value)
    path.write_bytes(data)
    return {"audio header wrong", "audio unreadable"}


def no_audio(rng, path):
    path.write_bytes(b"<html>404 Not Found</html>" if rng.random() < 0.5 else rng.bytes(4000))
    return {"audio unreadable"}


def nan_samples(rng, path):
    x = voice(rng)
    x[rng.integers(len(x), size=3)] = np.nan
    wavfile.write(path, RATE, x)
    return {"audio not finite"}


def infinite_sample(rng, path):
    x = voice(rng)
    x[rng.integers(len(x))] = rng.choice([np.inf, -np.inf])
    wavfile.write(path, RATE, x)
    return {"audio not finite"}


def no_samples(rng, path):
    wavfile.write(path, RATE, np.zeros(0, np.int16))
    return {"audio empty"}


def no_bytes(rng, path):
    path.write_bytes(b"")
    return {"audio empty"}


def zeros(rng, path):
    wavfile.write(path, RATE, np.zeros(len(voice(rng)), np.int16))
    return {"audio silent"}


def a_constant(rng, path):
    """A hole in an 8-bit file reads as full negative scale."""
    wavfile.write(path, RATE, np.zeros(len(voice(rng)), np.uint8))
    return {"audio silent"}


def a_click(rng, path):
    x = np.zeros(len(voice(rng)), np.float32)
    x[4000 : 4000 + int(rng.integers(1, 200))] = rng.uniform(0.2, 1)
    wavfile.write(path, RATE, x)
    return {"audio silent"}


def one_huge_sample(rng, path):
    """Scaled to full scale, it would leave nothing of the voice."""
    x = voice(rng)
    x[rng.integers(len(x))] = 10 ** rng.uniform(5, 37)
    wavfile.write(path, RATE, x)
    return {"audio silent"}


READ = [
    eight_bit, sixteen_bit, twenty_four_bit, thirty_two_bit, float_samples, float_that_was_never_scaled, seven_channels,
    ninety_six_khz, mp3_named_wav, length_unknown,
]  # fmt: skip
NAMED = [
    cut_wav, cut_seven_channels, cut_flac, cut_elsewhere, cut_header, wrong_header, no_audio, nan_samples,
    infinite_sample, no_samples, no_bytes, zeros, a_constant, a_click, one_huge_sample,
]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The files, what each must give, and the dataset that prepare makes of them."""
    folder = tmp_path_factory.mktemp("damaged")
    expected, lines = {}, []
    for make in [*READ, *NAMED]:
        for i in range(EACH):
            id = f"{make.__name__}-{i}"
            rng = np.random.default_rng([i, zlib.crc32(make.__name__.encode())])
            expected[id] = make(rng, folder / f"{id}.wav")
            votes = ["angry", "sad"] if i % 2 else ["sad"]
            lines.append({"id": id, "audio": f"{id}.wav", "speaker": f"s{i}", "votes": votes})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(expected) == 200
    return folder, expected, prepare(manifest.read(folder), folder / "dataset")


def test_each_file_is_read_or_named(prepared):
    _, expected, dataset = prepared
    dropped = {}
    for line in (dataset.path / "report" / "dropped.jsonl").read_text().splitlines():
        entry = json.loads(line)
        (id,) = set(entry.values()) & set(expected)
        dropped[id] = entry["reason"]
    assert set(dataset.utterances) | set(dropped) == set(expected)
    assert not set(dataset.utterances) & set(dropped)
    for id, truth in expected.items():
        if isinstance(truth, set):
            assert dropped.get(id) in truth, id
        else:
            assert id in dataset.utterances, (id, dropped.get(id))
    report = re.sub(" +", " ", (dataset.path / "report.md").read_text())
    for reason, count in Counter(dropped.values()).items():
        assert re.search(rf"\| {reason} \| {count} \|", report), reason


def test_what_is_read_is_what_was_there(prepared):
    """Against the samples before they were written, resampled alike; tolerance: the format's own steps."""
    _, expected, dataset = prepared
    for id, truth in expected.items():
        if isinstance(truth, set):
            continue
        x, rate, near = truth
        heard, wanted = dataset.audio(id), to_16k(Waveform(np.asarray(x, np.float32), rate))
        assert len(heard) == len(wanted), id
        np.testing.assert_allclose(heard, wanted, atol=near, err_msg=id)
        assert np.corrcoef(heard, wanted)[0, 1] > 0.99, id


def test_nothing_that_is_read_is_silence(prepared):
    _, _, dataset = prepared
    for id in dataset.utterances:
        assert dataset.audio(id).std() > 0.01, id


def test_a_damaged_file_has_one_sentence_that_names_it(prepared):
    folder, expected, _ = prepared
    for id, truth in expected.items():
        if isinstance(truth, set):
            with pytest.raises(BadAudio) as error:
                read_audio(folder / f"{id}.wav")
            assert id in str(error.value) and "\n" not in str(error.value) and error.value.reason in truth


def test_an_ogg_file_cut_inside_its_last_page(tmp_path):
    """libsndfile reads the pages before it without a word."""
    path = tmp_path / "a.ogg"
    soundfile.write(path, voice(np.random.default_rng(0)), RATE, format="OGG")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadAudio, match="shorter than its header says"):
        read_audio(path)


def test_a_tag_behind_the_samples_is_no_contradiction(tmp_path):
    x, _, near = sixteen_bit(np.random.default_rng(0), tmp_path / "a.wav")
    with (tmp_path / "a.wav").open("ab") as file:
        file.write(b"\x01\x02ID3" + b"\0" * 123)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, x, atol=near)
