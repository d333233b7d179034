"""Checks that FFmpeg decoded all that a file holds.

FFmpeg skips what it cannot decode and goes on, so a damaged file would pass as a shorter recording. The samples that
were decoded, the times of packets, the bytes between them and the length that a container declares must agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

import av
from av.container import InputContainer

from aer_jax.data.audio.bad_audio import cut_short, damaged, joined
from aer_jax.data.audio.container_checks import check_container, declared_size
from aer_jax.data.audio.frame_sizes import frame_size

# Seconds. Encoders add less than this at the beginning and the end, and nothing shorter is a word.
TOLERANCE = 0.1
_MOST_TOLERANCE = 0.3
_DRIFT = 1e-3  # of the time so far; clocks of recorders differ from the nominal rate by less
# One packet follows the other without a byte between them, and times are counted from the packets themselves.
_BARE = {"aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "flac", "loas", "mp3", "tta", "wv"}
# These write down how long the stream is, these how long the whole file is; for others FFmpeg may estimate it.
_STREAM_LENGTH = {"mov,mp4,m4a,3gp,3g2,mj2", "avi", "flac", "tta", "wv", "caf", "ape", "tak", "mpc", "mpc8", "dsf"}
_FILE_LENGTH = {"matroska,webm", "asf", "flv"}
_CHAIN = 4  # frames
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")


class Packet(NamedTuple):
    """Of the audio track.

    Attributes:
        time: when it begins, in seconds.
        seconds: of sound.
        place: its first byte in the file; -1 where the container does not say.
        size: in bytes.
        claimed: the size that its header says; None where there is none.
        failed: it could not be decoded.
        kept: False where an edit list leaves it out.
    """

    time: float | None
    seconds: float
    place: int
    size: int
    claimed: int | None
    failed: bool
    kept: bool


@dataclass
class Track:
    """Account of an audio track's packets and decoded samples.

    Attributes:
        format: FFmpeg's name of the container.
        lossless: the codec keeps every sample, so that none may be missing.
        declared: its length by the header in seconds; None where the format does not write it down.
        alone: the file has no other stream.
        rate: in Hz.
        samples: decoded.
        other_end: when the last packet of another stream ends, in seconds.
    """

    format: str
    lossless: bool
    declared: float | None
    alone: bool
    rate: int
    samples: int = 0
    other_end: float = 0.0
    packets: list[Packet] = field(default_factory=list)

    @classmethod
    def of(cls, container: InputContainer, stream: av.AudioStream) -> Track:
        """Before the first packet is read."""
        format, codec, declared = container.format.name, stream.codec_context.codec, None
        if format in _STREAM_LENGTH and stream.duration and stream.time_base:
            declared = float(stream.duration * stream.time_base)
        elif format in _FILE_LENGTH and container.duration:
            declared = container.duration / av.time_base
        return cls(format, codec.lossless and not codec.lossy, declared, len(container.streams) == 1, 0)

    def add(self, packet: av.Packet, samples: int, failed: bool, codec: str) -> None:
        """A packet, and how many samples were decoded from it; tags and the decoder's last samples are no packet."""
        self.samples += samples
        head = bytes(memoryview(packet)[:16])
        if not head or (failed and head.startswith(_TAGS)):
            return
        # Containers round a packet's duration to milliseconds; the samples of the first and last packet may be trimmed.
        seconds = samples / self.rate if samples and self.format not in _BARE else lasts(packet)
        claimed = frame_size(codec, self.format, head[:7])
        self.packets.append(
            Packet(begin(packet), seconds, _place(packet), packet.size, claimed, failed, not packet.is_discard)
        )

    def tolerance(self) -> float:
        """Seconds: the first and the last frame are filled up, and at 8 kHz a frame of AAC lasts 0.13 s."""
        frame = max((packet.seconds for packet in self.packets), default=0.0)
        return TOLERANCE if self.lossless else min(max(TOLERANCE, 2 * frame), _MOST_TOLERANCE)

    def seconds(self) -> float:
        """By the packets, without those that could not be decoded."""
        return sum(packet.seconds for packet in self.packets if packet.kept and not packet.failed)


def begin(packet: av.Packet) -> float | None:
    """When a packet begins, in seconds."""
    time = packet.dts if packet.pts is None else packet.pts
    return None if time is None else float(time * packet.time_base)


def _place(packet: av.Packet) -> int:
    return -1 if packet.pos is None else packet.pos


def lasts(packet: av.Packet) -> float:
    """How long a packet says it lasts, in seconds."""
    return float((packet.duration or 0) * packet.time_base) if packet.size else 0.0


def check_track(track: Track, file: BinaryIO, size: int, where: str) -> None:
    """Compare the accounts of a track.

    Raises:
        BadAudio: something is missing, or more is there than one recording.
    """
    check_container(track.format, file, size, where)
    _check_length(track, file, where)
    _check_packets(track, where)
    if track.format in _BARE:
        _check_bytes(track, file, size, where)
    elif track.format != "ogg":  # its pages are numbered, see ogg_pages.py, and Vorbis' packets do not say how long
        _check_times(track, where)


def _check_length(track: Track, file: BinaryIO, where: str) -> None:
    declared = _of_xing(track, file) if track.format == "mp3" else track.declared
    if declared is None or (track.format == "asf" and not declared_size("asf", file)):
        return  # FFmpeg estimates the length of an ASF file that was never finished
    decoded, packed = track.samples / track.rate, track.seconds()
    held = max(decoded, packed)
    if not track.alone and track.format in _FILE_LENGTH:
        ends = [packet.time + packet.seconds for packet in track.packets[-1:] if packet.time is not None]
        held = max(held, track.other_end, *ends)  # the picture may begin before the sound and go on behind it
    elif min(decoded, packed) - declared > track.tolerance():
        raise joined(where, f"its header says {declared:.1f} s, it lasts {held:.1f} s")
    if declared - held > track.tolerance():
        raise cut_short(where, f"{declared:.1f} s there, {held:.1f} s decoded")


def _check_packets(track: Track, where: str) -> None:
    """Each packet could be decoded, is as large as it says, and gave samples."""
    for packet in track.packets:
        if packet.claimed not in (None, packet.size):
            if packet is track.packets[-1]:
                raise cut_short(where, "it ends inside a frame")
            raise damaged(where, f"bytes are missing or wrong after byte {packet.place}")
    # The first frame of a stream that was joined late needs what came before; another one in a bare stream is spliced.
    lost = sum(packet.seconds for packet in track.packets[1 if track.format in _BARE else 0 :] if packet.failed)
    if lost > (0 if track.lossless or track.format in _BARE else TOLERANCE):
        raise damaged(where, f"{lost:.2f} s of it cannot be decoded")
    decoded, packed = track.samples / track.rate, track.seconds()
    if packed - decoded > 2 * track.tolerance():
        raise damaged(where, f"{decoded:.1f} of {packed:.1f} s could be decoded")


def _check_times(track: Track, where: str) -> None:
    """Packets must follow one another in time: where some are missing the next one is late."""
    first = expected = None
    passed, tolerance = 0.0, track.tolerance()
    for packet in track.packets:
        if packet.time is None:
            continue
        if first is None or expected is None:
            first = expected = packet.time
        late = packet.time - expected
        if late < -tolerance:
            raise joined(where, f"its time goes back by {-late:.1f} s at {expected - first:.1f} s")
        behind = packet.time - first - passed
        if late > tolerance or behind > 2 * tolerance + _DRIFT * passed:
            raise damaged(where, f"{max(late, behind):.1f} s are missing before {packet.time - first:.1f} s")
        if -behind > 2 * tolerance + _DRIFT * passed:
            raise damaged(where, f"{-behind:.1f} s too much were decoded before {packet.time - first:.1f} s")
        passed += packet.seconds
        expected = packet.time + packet.seconds


def _check_bytes(track: Track, file: BinaryIO, size: int, where: str) -> None:
    """Refuse unread audio between packets or behind the last one: lost packets, or another file's header."""
    placed = [packet for packet in track.packets if packet.place >= 0]
    if not placed:
        return
    ends = [packet.place + packet.size for packet in placed]
    begins = [packet.place for packet in placed[1:]] + [size]
    if track.format in ("mp3", "aac"):
        if _hides_frames(file, _tags_end(file)):
            raise damaged(where, "the length of its ID3 tag is wrong: the tag would hold audio")
        lead = _lead(track, file)
        ends.insert(0, placed[0].place - (0 if _xing(lead) else len(lead)))
        begins.insert(0, placed[0].place)
    per_second = sum(packet.size for packet in placed) / max(sum(packet.seconds for packet in placed), 1e-3)
    for end, begin in zip(ends, begins, strict=True):
        # Between packets a single byte shows that the decoder lost its place; at both ends encoders pad.
        padded = track.format != "aac" and (end < placed[0].place or begin == size)
        file.seek(end)
        loose = file.read(16)
        begun = loose.startswith(b"\xff")  # a frame
        allowed = TOLERANCE * per_second if padded and not (track.lossless or begun) else 0
        if begin - end > allowed and not loose.startswith(_TAGS):
            raise damaged(where, f"{begin - end} bytes at byte {end} are no audio")


def _tags_end(file: BinaryIO) -> int:
    """Bytes of the ID3 tags at a file's beginning."""
    place = 0
    file.seek(0)
    while (head := file.read(10)).startswith(b"ID3") and len(head) == 10:
        # Seven bits of each of four bytes; a footer is as long as the header.
        place += 10 + int("".join(f"{byte & 127:07b}" for byte in head[6:]), 2) + (10 if head[5] & 16 else 0)
        file.seek(place)
    return place


def _hides_frames(file: BinaryIO, end: int) -> bool:
    """Whether several MPEG frames follow one another in the first `end` bytes; pictures in a tag hold no such chain."""
    file.seek(0)
    head = file.read(end)
    start = head.find(b"\xff")
    while start >= 0:
        at = start
        for _ in range(_CHAIN):
            size = frame_size("mp3", "mp3", head[at : at + 7])
            if not size or at + size > end:
                break
            at += size
        else:
            return True
        start = head.find(b"\xff", start + 1)
    return False


def _lead(track: Track, file: BinaryIO) -> bytes:
    """What stands before the first packet, ID3 tags left out."""
    place = _tags_end(file)
    file.seek(place)
    return file.read(max(track.packets[0].place - place, 0))


def _xing(lead: bytes) -> int:
    """How many frames an MP3's own index names, in a first frame that is no sound; 0 without one."""
    for name in (b"Xing", b"Info"):
        place = lead.rfind(name)
        if place >= 0 and len(lead) >= place + 12 and lead[place + 7] & 1:
            return int.from_bytes(lead[place + 8 : place + 12], "big")
    place = lead.rfind(b"VBRI")
    return int.from_bytes(lead[place + 14 : place + 18], "big") if place >= 0 else 0


def _of_xing(track: Track, file: BinaryIO) -> float | None:
    frames = _xing(_lead(track, file))
    return frames * (1152 if track.rate >= 32_000 else 576) / track.rate if frames else None
