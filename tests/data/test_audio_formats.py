"""Every format that recorders write is read whole; what is damaged, cut or joined is refused, never shortened."""

from __future__ import annotations

import contextlib
import io
import random
import zlib

import audio_formats
import av
import numpy as np
import pytest
from audio_formats import EXACT, NAMES, RATE, SECONDS, encoded, pcm16

from aer_jax.data.audio.read import BadAudio, decode, decode_bytes, seconds, to_16k

NEAR = 0.1
# A stream of MP3 frames has no beginning and no length: two of them are one.
_STREAMS = {"mp3 without index", "aac"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_whole(name):
    waveform = decode_bytes(encoded(name), "clip")
    assert len(waveform.samples) / waveform.rate == pytest.approx(SECONDS, abs=NEAR)
    assert seconds(encoded(name)) == pytest.approx(SECONDS, abs=NEAR)
    if name in EXACT:
        np.testing.assert_array_equal(np.rint(waveform.samples * 32768).astype(np.int16), pcm16())
        return
    ours, truth = to_16k(waveform), audio_formats.voice()
    # Encoders shift the sound by less than a tenth of a second and filter it.
    agreement = np.correlate(ours, truth[RATE // 4 : -RATE // 4], "valid")
    assert agreement.max() > (0.4 if name in ("amr", "3gp") else 0.8) * np.sum(truth[RATE // 4 : -RATE // 4] ** 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_that_was_cut_is_refused(name):
    whole = encoded(name)
    for share in (0.3, 0.55, 0.8):
        with pytest.raises(BadAudio) as error:
            decode_bytes(whole[: int(len(whole) * share) + 1], "clip")
        assert error.value.reason in ("audio cut short", "audio damaged", "audio unreadable")
        assert "clip" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_missing_in_the_middle_are_noticed(name):
    whole = encoded(name)
    place = len(whole) // 2
    with pytest.raises(BadAudio):
        decode_bytes(whole[:place] + whole[place + 3001 :], "clip")


@pytest.mark.parametrize("format", ["webm", "matroska"])
def test_whole_packets_missing_in_the_middle_are_noticed(format):
    """As a stream recorded over a bad connection: each packet is whole, and the time jumps."""
    out = io.BytesIO()
    with (
        av.open(io.BytesIO(encoded("live webm"))) as whole,
        av.open(out, "w", format=format, options={"live": "1"}) as cut,
    ):
        stream = cut.add_stream_from_template(whole.streams.audio[0])
        for packet in whole.demux(audio=0):
            if packet.size and not 1.0 < packet.pts * packet.time_base < 1.6:
                packet.stream = stream
                cut.mux(packet)
    with pytest.raises(BadAudio, match=r"0\.6 s are missing before 1\.6 s"):
        decode_bytes(out.getvalue(), "clip")


@pytest.mark.parametrize("bit", [1, 2, 4])
def test_a_tag_that_swallows_audio_is_noticed(bit):
    """One bit of an ID3 tag's length makes half a second to two of the frames behind it a part of the tag."""
    frames = encoded("mp3 without index")
    tagged = bytearray(b"ID3\x04\0\0\0\0\0\x40" + bytes(64) + frames)
    assert decode_bytes(bytes(tagged), "clip").samples.size == decode_bytes(frames, "clip").samples.size
    tagged[8] ^= 16 * bit  # 128 bytes each
    with pytest.raises(BadAudio, match="the tag would hold audio"):
        decode_bytes(bytes(tagged), "clip")


@pytest.mark.parametrize("name", NAMES)
def test_two_recordings_in_one_file(name):
    try:
        waveform = decode_bytes(encoded(name) * 2, "clip")
    except BadAudio as error:
        assert name not in _STREAMS
        assert "two recordings" in error.reason or name in ("amr", "nist", "w64")
    else:
        assert name in _STREAMS and len(waveform.samples) / waveform.rate == pytest.approx(2 * SECONDS, abs=NEAR)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "au"])  # says each thing once: any of it may be so
def test_no_flipped_byte_shortens_a_recording(name):
    whole = encoded(name)
    truth = decode_bytes(whole, "clip")
    rng = random.Random(zlib.crc32(name.encode()))
    for i in range(40):
        damaged = bytearray(whole)
        # Half of them where the headers are; of AIFF and WAV the rate is known from one place or two.
        place = rng.randrange(min(len(whole), 400) if i % 2 else len(whole))
        if name in ("aiff", "caf") and place < 64:
            continue
        damaged[place] ^= rng.choice([1, 4, 16, 64, 255])
        try:
            waveform = decode_bytes(bytes(damaged), "clip")
        except BadAudio:
            continue
        assert waveform.rate == truth.rate, place
        assert len(waveform.samples) == pytest.approx(len(truth.samples), abs=1.2 * NEAR * truth.rate), place


def test_a_flipped_byte_in_an_ogg_page_is_named():
    damaged = bytearray(encoded("ogg opus"))
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(BadAudio, match="the checksum of the page at byte") as error:
        decode_bytes(bytes(damaged), "clip")
    assert error.value.reason == "audio damaged"


def test_flac_of_unknown_length(tmp_path):
    """Encoders that write to a pipe leave the number of samples 0."""
    data = bytearray(encoded("flac"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    waveform = decode(tmp_path / "a.flac")
    np.testing.assert_array_equal(np.rint(waveform.samples * 32768).astype(np.int16), pcm16())
    with pytest.raises(BadAudio):
        decode_bytes(bytes(data[: len(data) * 2 // 3]), "clip")


def test_tags_around_an_mp3_are_no_damage():
    mp3 = encoded("mp3 without index")
    id3 = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)
    end = b"TAG" + bytes(125)
    alone = decode_bytes(mp3, "clip").samples
    np.testing.assert_array_equal(decode_bytes(id3 + mp3 + end, "clip").samples, alone)
    assert len(decode_bytes(mp3 + id3 + mp3 + end, "clip").samples) == pytest.approx(2 * len(alone), abs=2000)


def test_the_ending_of_a_name_says_nothing(tmp_path):
    for name in ("wav", "mp3", "m4a"):
        (tmp_path / "a.raw").write_bytes(encoded(name))
        assert len(decode(tmp_path / "a.raw").samples) > 2 * RATE


def test_a_damaged_packet_does_not_make_the_others_silent():
    """Its samples come out many times as loud as full scale, to which all others would be scaled down."""
    damaged = bytearray(encoded("aac"))
    assert damaged[285] == 251
    damaged[285] = 235
    with pytest.raises(BadAudio, match="times as loud as any can be"):
        decode_bytes(bytes(damaged), "clip")


@pytest.mark.parametrize("name", ["live webm", "webm", "mkv+video"])
def test_matroska_with_something_else_behind_its_beginning(name):
    whole = encoded(name)
    for share in (0.3, 0.5, 0.8):
        with pytest.raises(BadAudio):
            decode_bytes(whole[: int(share * len(whole))] + encoded("wav"), "clip")


def test_damaged_audio_prints_no_traceback(capfd):
    """PyAV prints what its file raises."""
    for name in ("m4a", "wma", "avi", "mkv+video"):
        for place in range(0, 400):
            damaged = bytearray(encoded(name))
            damaged[place] = 255
            with contextlib.suppress(BadAudio):
                decode_bytes(bytes(damaged), "clip")
    assert "Traceback" not in capfd.readouterr().err
