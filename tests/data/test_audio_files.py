"""What lies where an audio file should be: one sentence for that file, and never a wait."""

import json
import os
import socket
import struct

import numpy as np
import pytest
import soundfile

from aer_jax.corpora.manifest import reader as manifest
from aer_jax.data.audio.read import BadAudio, decode, decode_bytes, mono, read_audio, seconds
from aer_jax.data.preparation.prepare import prepare

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)


def refusal(path):
    with pytest.raises(BadAudio) as error:
        read_audio(path)
    assert "\n" not in str(error.value) and str(path)[:50] in str(error.value)
    assert seconds(path) is None
    return error.value.reason, str(error.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    assert refusal(tmp_path / "a.wav")[1].endswith("is a pipe; give its content on standard input.")


def test_devices_sockets_folders_and_links(tmp_path, monkeypatch):
    assert "is a device" in refusal("/dev/zero")[1]
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.wav")
        assert "is a socket" in refusal("s.wav")[1]
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    assert "symbolic links" in refusal(tmp_path / "loop.wav")[1]
    (tmp_path / "lost.wav").symlink_to(tmp_path / "nowhere.wav")
    reason, sentence = refusal(tmp_path / "lost.wav")
    assert reason == "audio file missing" and "a link to" in sentence and "nowhere.wav" in sentence
    (tmp_path / "folder.wav").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder.wav")[1]
    assert refusal(tmp_path / "folder.wav" / "a.wav")[0] == "audio file missing"
    (tmp_path / "file.wav").write_bytes(b"x")
    assert refusal(tmp_path / "file.wav" / "a.wav")[0] == "audio file missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", NOISE, RATE)
    (tmp_path / "a.wav").chmod(0)
    assert "Permission denied" in refusal(tmp_path / "a.wav")[1]


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.wav\n", "git-annex pointer", "git annex get"),
        (b"<!DOCTYPE html><html>404 Not Found</html>", "audio unreadable", "text that begins with '<!DOCTYPE html>"),
        ("Café, 12 Uhr".encode() * 100, "audio unreadable", "text that begins with 'Café, 12 Uhr"),
        (b"#EXTM3U\n/etc/passwd\n", "audio unreadable", "text that begins with '#EXTM3U"),
        (np.random.default_rng(1).bytes(20_000), "audio unreadable", "no known audio format"),
        (bytes(10_000), "audio unreadable", "cannot read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "audio unreadable", "cannot read"),
        (b"", "audio empty", "0 bytes"),
    ],
)
@pytest.mark.parametrize("ending", ["wav", "mp3", "raw", "m3u8"])
def test_what_is_no_audio(tmp_path, content, reason, words, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content)
    told, sentence = refusal(path)
    assert told.startswith(reason) and words in sentence
    with pytest.raises(BadAudio) as error:
        decode_bytes(content, "standard input")
    assert error.value.reason == told


@pytest.mark.parametrize("rate", [1, 100, 3999, 1_000_000])
def test_sample_rates_that_no_speech_has(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, NOISE, RATE)
    data = bytearray(path.read_bytes())
    struct.pack_into("<II", data, 24, rate, 2 * rate)
    path.write_bytes(data)
    with pytest.raises(BadAudio, match=f"a sample rate of {rate} Hz"):
        decode(path)


def test_channels_that_cancel_are_one_good_channel(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([NOISE, -NOISE], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, NOISE)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([-NOISE], 0),
        ([-0.5 * NOISE], 0),
        ([-2 * NOISE], 1),
        ([-NOISE + 0.05], None),  # a constant beside it is no sound
        ([np.where(np.arange(RATE) < RATE // 2, -NOISE, NOISE)], None),  # in one half of the clip
        ([NOISE], "mean"),
        ([0.3 * NOISE], "mean"),
        ([0 * NOISE], "mean"),
        ([NOISE[::-1].copy()], "mean"),
        ([0 * NOISE] * 6, "mean"),
        ([-NOISE, NOISE, -NOISE], 0),
        ([-1e-3 * NOISE], "mean"),
    ],
)
def test_which_channels_are_mixed(others, chosen):
    channels_tc = np.stack([NOISE, *others], axis=1).astype(np.float32)
    mixed = mono(channels_tc, RATE)
    if chosen == "mean":
        np.testing.assert_allclose(mixed, channels_tc.mean(axis=1), atol=1e-7)
    else:
        assert any(np.array_equal(mixed, channels_tc[:, i]) for i in ([chosen] if chosen is not None else [0, 1]))


def test_prepare_names_each_kind_and_goes_on(tmp_path):
    soundfile.write(tmp_path / "a.wav", NOISE[:9000], RATE)
    soundfile.write(tmp_path / "b.wav", NOISE[-9000:], RATE)
    soundfile.write(tmp_path / "c.wav", NOISE[::-1], RATE)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "lfs.wav").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (tmp_path / "page.wav").write_bytes(b"<html>404</html>")
    (tmp_path / "two.wav").write_bytes((tmp_path / "a.wav").read_bytes() * 2)
    names = ["a", "pipe", "lfs", "page", "two", "b", "c"]
    lines = [f"{name},{name}.wav,s{i},happy;sad" for i, name in enumerate(names)]
    (tmp_path / "m.csv").write_text("\n".join(["id,audio,speaker,votes", *lines]))
    dataset = prepare(manifest.read(tmp_path / "m.csv"), tmp_path / "out")
    assert set(dataset.utterances) == {"a", "b", "c"}
    dropped = [json.loads(line) for line in (tmp_path / "out" / "report" / "dropped.jsonl").read_text().splitlines()]
    assert {line["what"]: line["reason"] for line in dropped} == {
        "pipe": "audio is no regular file",
        "lfs": "Git LFS pointer, run `git lfs pull`",
        "page": "audio unreadable",
        "two": "two recordings in one file",
    }
