"""Compressed audio by FFmpeg (PyAV), in any container; of a video the audio track."""

from __future__ import annotations

import io
from typing import BinaryIO, cast

import av
import numpy as np
from av.container import InputContainer

from aer_jax.data.audio.bad_audio import BadAudio, check_rate, damaged, joined, text_of, unreadable
from aer_jax.data.audio.container_checks import check_container
from aer_jax.data.audio.stream_checks import Track, begin, check_track, lasts

# Of files with sound in them. FFmpeg also knows playlists, which open other files, and draws text as pictures.
_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,caf,dsf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,nistsphere,nut,ogg,oma,qcp,spx,tak,tta,voc,w64,wav,wtv,wv,xwma"
)
# Their samples are libsndfile's to read; where it refuses them the header is wrong, and FFmpeg would read noise.
_UNCOMPRESSED = {"aiff", "au", "caf", "voc", "w64", "wav"}
# PyAV looks for the end of a frame's list of planes, which from eight on has none, and reads on beyond it.
_MOST_PLANES = 8
# Of full scale. Lossy decoders overshoot what was clipped, by less than this; a damaged packet makes any number.
_LOUDEST = 4.0
_ERRORS = (av.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, MemoryError)


def read_stream(file: BinaryIO, size: int, where: str) -> tuple[list[np.ndarray], int]:
    """Decode the audio track of a file.

    Args:
        file: of a format that FFmpeg knows.
        size: its bytes.
        where: how messages name it.

    Returns:
        float32 [channels, samples] of each stretch with the same number of channels, and the rate in Hz.

    Raises:
        BadAudio: it cannot be decoded, or what was decoded is not all that it held.
    """
    stretches: list[list[np.ndarray]] = []
    try:
        with _open(file) as container:
            stream = _audio_track(container, where)
            track = Track.of(container, stream)
            for packet in container.demux():
                if packet.stream.index != stream.index:
                    track.other_end = max(track.other_end, (begin(packet) or 0.0) + lasts(packet))
                    continue
                frames, failed = _decode(packet)
                for frame in frames:
                    if track.rate not in (0, frame.sample_rate):
                        raise joined(where, f"its sample rate changes from {track.rate} to {frame.sample_rate} Hz")
                    track.rate = frame.sample_rate
                    planes_ct = _samples(frame)
                    if not stretches or len(stretches[-1][0]) != len(planes_ct):
                        stretches.append([])
                    stretches[-1].append(planes_ct)
                track.add(packet, sum(frame.samples for frame in frames), failed, stream.codec_context.name)
    except _ERRORS as error:
        raise _refusal(file, where, error) from None
    if not stretches:
        raise unreadable(where, "no part of it can be decoded")
    check_rate(track.rate, where)
    check_track(track, file, size, where)
    whole = [np.concatenate(stretch, axis=1) for stretch in stretches]
    if not track.lossless and (peak := max(float(np.abs(planes_ct).max(initial=0)) for planes_ct in whole)) > _LOUDEST:
        # Scaled down to full scale, the speech around it would be next to silent.
        raise damaged(where, f"a sample of it is {peak:.0f} times as loud as any can be")
    return whole, track.rate


def stream_seconds(file: BinaryIO) -> float | None:
    """The length of an audio track by counting its packets; what a header says may be an estimate."""
    try:
        with _open(file) as container:
            packets = [packet for packet in container.demux(_audio_track(container, "")) if packet.size]
            first, last = begin(packets[0]), begin(packets[-1])
            counted = sum(map(lasts, packets))
            return counted if first is None or last is None else last + lasts(packets[-1]) - first
    except (BadAudio, *_ERRORS):
        return None


class _Reader:
    """A file for PyAV, which prints a traceback where moving raises; to FFmpeg a negative place says the same."""

    def __init__(self, file: BinaryIO):
        self.read, self.tell, self._move = file.read, file.tell, file.seek

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._move(place, whence)
        except (OSError, ValueError):
            return -1


def _open(file: BinaryIO) -> InputContainer:
    file.seek(0)
    return av.open(
        cast(BinaryIO, _Reader(file)), "r", options={"format_whitelist": _CONTAINERS}, metadata_errors="replace"
    )


def _audio_track(container: InputContainer, where: str) -> av.AudioStream:
    stream = container.streams.best("audio")
    if not isinstance(stream, av.AudioStream):
        raise BadAudio("no audio track", f"{where} has no audio track; replace or remove it.")
    if stream.codec_context is None:
        raise unreadable(where, "its codec is unknown")
    if stream.codec_context.name.startswith(("pcm_", "adpcm_")) and container.format.name in _UNCOMPRESSED:
        raise unreadable(where, f"its {container.format.name} header is damaged")
    stream.codec_context.options = {"err_detect": "crccheck"}  # FLAC and AC-3 have checksums
    return stream


def _decode(packet: av.Packet) -> tuple[list[av.AudioFrame], bool]:
    try:
        frames = cast(list[av.AudioFrame], packet.decode())  # typed for video
    except av.InvalidDataError:
        return [], True
    return frames, packet.is_corrupt or any(frame.is_corrupt for frame in frames)


def _samples(frame: av.AudioFrame) -> np.ndarray:
    if frame.format.is_planar and frame.layout.nb_channels >= _MOST_PLANES:
        (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    middle = 128 if array.dtype.kind == "u" else 0
    return (array.astype(np.float32) - middle) / np.float32(2.0 ** (8 * array.dtype.itemsize - 1))


def _refusal(file: BinaryIO, where: str, error: Exception) -> BadAudio:
    file.seek(0)
    if begins := text_of(file.read(512)):
        return unreadable(where, f"it is text that begins with {begins!r}", "fetch or export the audio again")
    file.seek(4)
    if file.read(4) == b"ftyp":
        check_container("mov", file, file.seek(0, 2), where)
        return unreadable(where, "its index, the moov box, is missing or damaged", "copy or record it again")
    unknown = isinstance(error, av.InvalidDataError | av.ArgumentError)
    return unreadable(where, "no known audio format, or its header is damaged" if unknown else error)
