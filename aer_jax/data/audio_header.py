"""What libsndfile notes about a file and reads all the same: a header that promises more, or contradicts itself.

Half a sentence must not be trained on with the whole sentence's votes, nor noise that a wrong sample width makes.
"""

from __future__ import annotations

import re

import soundfile

# Writers that cannot seek leave a placeholder near 2^31 or 2^32 as the length.
_PLACEHOLDER = 0x7FFF_0000
_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 0x1, 0x3, 0x6, 0x7, 0xFFFE
# The length of the samples in WAV, AIFF, AU; of the whole file in W64 and RF64, which WAV files often have wrong.
_LENGTH = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_STRAY = re.compile(r"^\*\*\* Unknown chunk marker \(\w+\) at position (\d+)\. Exiting parser", re.MULTILINE)
_OGG_END = re.compile(r"^Ogg: (?:Last page lacks an end-of-stream bit|Junk after the last page)", re.MULTILINE)
_NIST_SAMPLES = re.compile(rb"sample_count -i (\d+)")


def is_cut_short(file: soundfile.SoundFile, head: bytes) -> bool:
    """Whether less is there than the header says.

    Args:
        file: opened for reading.
        head: the file's first 1024 bytes.
    """
    promised = any(int(found) < int(said) < _PLACEHOLDER for said, found in _LENGTH.findall(file.extra_info))
    nist = _NIST_SAMPLES.search(head) if head.startswith(b"NIST_1A") else None
    return promised or _OGG_END.search(file.extra_info) is not None or (nist is not None and file.frames < int(nist[1]))


def contradiction(file: soundfile.SoundFile, size: int, shortest: float) -> str:
    """What in a WAV header cannot be true, or ""; a field that is 0 says nothing.

    Args:
        file: opened for reading.
        size: bytes of the file.
        shortest: seconds of sound that may lie unnamed behind the samples; tags of a few bytes do.
    """

    def field(name: str) -> int:
        found = re.search(rf"^ *{name} *: (\w+)", file.extra_info, re.MULTILINE)
        return int(found[1], 0) if found else 0

    kind, channels, rate = field("Format"), field("Channels"), field("Sample Rate")
    if file.format not in ("WAV", "WAVEX") or kind not in (_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE):
        return ""
    width = 1 if kind in (_A_LAW, _MU_LAW) else (field("Bit Width") + 7) // 8
    said = {"Block Align": channels * width, "Bytes/sec": rate * channels * width}
    for name, value in said.items():
        if field(name) not in (0, value):
            return f"its {name} is {field(name)}, its other fields make {value}"
    stray = _STRAY.search(file.extra_info)
    if stray and size - int(stray[1]) > shortest * rate * channels * width:
        return f"nothing says what lies behind its byte {stray[1]}"
    return ""
