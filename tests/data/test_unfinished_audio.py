"""What pipes, stopped recorders and surround microphones write is read whole."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
import soundfile
from audio_formats import RATE, SECONDS, encode, encoded, pcm16

from aer_jax.data.audio.read import BadAudio, decode_bytes, seconds


class Pipe:
    """Takes bytes and cannot go back to fill in a length."""

    def __init__(self):
        self.content = b""

    def write(self, content) -> int:
        self.content += bytes(content)
        return len(content)


def _piped(container: str, codec: str, rate: int = RATE) -> bytes:
    pipe = Pipe()
    with av.open(pipe, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 128_000
        stream.codec_context.open()
        encode(out, stream, rate)
    return pipe.content


def _no_length(wav: bytes) -> bytes:
    place = wav.index(b"data") + 4
    return wav[:place] + bytes(4) + wav[place + 4 :]


def _bw64() -> bytes:
    return encoded("rf64").replace(b"RF64", b"BW64", 1)


@pytest.mark.parametrize(
    "content",
    [
        _no_length(encoded("wav")),
        _no_length(encoded("wav")[:4] + bytes(4) + encoded("wav")[8:]),
        _bw64(),
        _piped("caf", "pcm_s16le"),
    ],
    ids=["no data size", "no size at all", "BW64", "CAF"],
)
def test_an_unfinished_header_of_uncompressed_audio(content):
    np.testing.assert_array_equal(np.rint(decode_bytes(content, "a").samples * 32768).astype(np.int16), pcm16())
    assert seconds(content) == SECONDS


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("asf", "wmav2", 44_100), ("wav", "adpcm_ms", RATE), ("wav", "adpcm_ima_wav", RATE), ("matroska", "aac", 44_100)],
)
def test_compressed_audio_through_a_pipe(container, codec, rate):
    waveform = decode_bytes(_piped(container, codec, rate), "a")
    assert len(waveform.samples) / waveform.rate == pytest.approx(SECONDS, abs=0.1)


def test_no_samples_and_tags_behind_is_empty():
    header = _no_length(encoded("wav"))[:44]
    tags = b"LIST" + (200).to_bytes(4, "little") + b"INFO" + bytes(range(196))
    assert not decode_bytes(header + tags, "a").samples.size


@pytest.mark.parametrize("channels", [7, 8, 12])
def test_many_channels(channels):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.repeat(pcm16()[:, None], channels, axis=1), RATE, format="OGG", subtype="VORBIS")
    np.testing.assert_allclose(decode_bytes(buffer.getvalue(), "a").samples, pcm16() / 32768, atol=0.2)


def test_voc_blocks_are_not_read_as_noise():
    with pytest.raises(BadAudio, match="several blocks"):
        decode_bytes(_piped("voc", "pcm_s16le"), "a")


def test_mp4_without_its_index():
    mp4 = encoded("m4a")
    index = mp4.index(b"moov") - 4
    with pytest.raises(BadAudio, match="moov"):
        decode_bytes(mp4[:index], "a")


def test_sound_that_begins_after_the_picture(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for i in range(5):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, np.uint8), format="rgb24")
            picture.pts = i
            out.mux(video.encode(picture))
        for i in range(30):
            frame = av.AudioFrame.from_ndarray(pcm16()[None, i * 1600 : (i + 1) * 1600], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, 24_000 + 1600 * i
            out.mux(stream.encode(frame))
    assert len(decode_bytes(path.read_bytes(), "a").samples) == SECONDS * RATE
