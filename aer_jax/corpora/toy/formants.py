"""A small formant synthesizer: phones in, speech-like audio out.

Source-filter model (Fant, 1960) in the manner of Klatt (1980): glottal pulses and noise excite a cascade of
second-order resonators whose frequencies glide from phone to phone. Vowel formants are the men's averages of
Peterson and Barney (1952), scaled by a speaker's vocal tract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter, sosfilt

RATE = 16_000
FRAME = 80  # samples; formants and amplitudes are constant for 5 ms
BANDWIDTHS = (70.0, 100.0, 140.0, 220.0, 300.0)
UPPER_FORMANTS = (3500.0, 4500.0)


class Phone(NamedTuple):
    """How one phone is made: formants and noise centre in Hz, duration in ms, amplitudes in 0 to 1."""

    formants: tuple[float, float, float]
    duration: float
    voice: float
    breath: float = 0.0
    hiss: float = 0.0
    hiss_at: float = 4000.0
    hiss_width: float = 1500.0
    glide: tuple[float, float, float] | None = None
    burst: bool = False


_VOWELS = {
    "IY": (270, 2290, 3010), "IH": (390, 1990, 2550), "EH": (530, 1840, 2480), "AE": (660, 1720, 2410),
    "AH": (640, 1190, 2390), "AA": (730, 1090, 2440), "AO": (570, 840, 2410), "UH": (440, 1020, 2240),
    "UW": (300, 870, 2240), "ER": (490, 1350, 1690),
}  # fmt: skip
_GLIDES = {"EY": ("EH", "IY"), "AY": ("AA", "IY"), "OW": ("AO", "UW"), "AW": ("AA", "UW")}
_LIPS, _TEETH, _PALATE, _VELUM = (350, 900, 2300), (350, 1700, 2600), (330, 1900, 2500), (350, 2050, 2400)

PHONES: dict[str, Phone] = {
    **{name: Phone(f, 75, 1.0) for name, f in _VOWELS.items()},
    **{name: Phone(_VOWELS[a], 95, 1.0, glide=_VOWELS[b]) for name, (a, b) in _GLIDES.items()},
    "M": Phone((250, 1050, 2200), 65, 0.45),
    "N": Phone((250, 1500, 2400), 60, 0.45),
    "L": Phone((360, 1050, 2700), 60, 0.65),
    "R": Phone((420, 1250, 1650), 60, 0.7),
    "W": Phone((300, 680, 2200), 60, 0.6),
    "HH": Phone((500, 1500, 2500), 55, 0.0, breath=0.8),
    "S": Phone(_TEETH, 90, 0.0, hiss=0.55, hiss_at=6200, hiss_width=2200),
    "SH": Phone(_PALATE, 95, 0.0, hiss=0.6, hiss_at=3300, hiss_width=1800),
    "F": Phone(_LIPS, 80, 0.0, hiss=0.2, hiss_at=5500, hiss_width=5000),
    "V": Phone(_LIPS, 55, 0.4, hiss=0.1, hiss_at=5500, hiss_width=5000),
    "Z": Phone(_TEETH, 70, 0.35, hiss=0.3, hiss_at=6000, hiss_width=2200),
    "DH": Phone(_TEETH, 45, 0.4, hiss=0.08, hiss_at=5000, hiss_width=5000),
    "P": Phone(_LIPS, 75, 0.0, hiss=0.5, hiss_at=1200, hiss_width=1500, burst=True),
    "T": Phone(_TEETH, 70, 0.0, hiss=0.7, hiss_at=4500, hiss_width=2500, burst=True),
    "K": Phone(_VELUM, 75, 0.0, hiss=0.6, hiss_at=2200, hiss_width=1200, burst=True),
    "B": Phone(_LIPS, 60, 0.2, hiss=0.25, hiss_at=1000, hiss_width=1500, burst=True),
    "D": Phone(_TEETH, 55, 0.2, hiss=0.35, hiss_at=4200, hiss_width=2500, burst=True),
    "G": Phone(_VELUM, 60, 0.2, hiss=0.3, hiss_at=2000, hiss_width=1200, burst=True),
}


@dataclass(frozen=True)
class Voice:
    """A speaker: habitual pitch in Hz, formant scale (1 = adult man), breathiness 0 to 1, level in dB."""

    pitch: float
    tract: float
    breath: float
    level: float


@dataclass(frozen=True)
class Prosody:
    """Prosody of a sentence, relative to the speaker's habit.

    Attributes:
        pitch: mean pitch, semitones.
        range: size of the pitch movements, semitones.
        energy: level, dB.
        rate: speaking rate, 1 = habitual.
        brightness: octaves by which the source's low-pass corner moves; higher is a flatter spectral tilt.
    """

    pitch: float
    range: float
    energy: float
    rate: float
    brightness: float


def speak(phones: Sequence[str], voice: Voice, prosody: Prosody, rng: np.random.Generator) -> np.ndarray:
    """Synthesize one sentence.

    Args:
        phones: keys of `PHONES`; a trailing 1 marks a stressed vowel.
        voice: the speaker.
        prosody: the manner.
        rng: jitter, shimmer, noise and small timing differences.

    Returns:
        float32 [samples] in [-1, 1] at `RATE`, with short pauses around the words.
    """
    frames = _Frames()
    frames.pause(rng.uniform(60, 110))
    for position, phone in enumerate(phones):
        stress = phone.endswith("1")
        stretch = (1.5 if stress else 1.0) * (1.35 if position >= len(phones) - 2 else 1.0)
        duration = PHONES[phone.rstrip("1")].duration * stretch * rng.uniform(0.88, 1.12) / prosody.rate
        frames.add(PHONES[phone.rstrip("1")], duration, stress)
    frames.pause(rng.uniform(60, 110))
    tracks = frames.tracks()

    samples = len(tracks["voice"]) * FRAME
    pitch_hz = _pitch(tracks["accent"], voice, prosody, rng)
    pulses = _glottal_pulses(np.repeat(pitch_hz, FRAME), rng)
    corner = 1400.0 * 2.0**prosody.brightness
    decay = np.exp(-2 * np.pi * corner / RATE)
    pulses = lfilter([1 - decay], [1, -decay], pulses)
    pulses /= np.sqrt(np.mean(pulses**2))
    noise = rng.standard_normal(samples)
    excitation = pulses * np.repeat(tracks["voice"], FRAME)
    excitation += noise * np.repeat(0.25 * tracks["breath"] + 0.06 * voice.breath * tracks["voice"], FRAME)
    speech = _resonate(excitation, tracks["formants"] * voice.tract)
    speech += 0.35 * _hiss(noise * np.repeat(tracks["hiss"], FRAME), tracks["hiss_at"], tracks["hiss_width"])

    speech *= 10 ** ((-30 + voice.level + prosody.energy) / 20) / np.sqrt(np.mean(speech**2))
    speech += 10 ** (-68 / 20) * rng.standard_normal(samples)  # a room is never digitally silent
    return (speech / max(1.0, np.abs(speech).max() / 0.98)).astype(np.float32)


class _Frames:
    """Targets in 5 ms frames, phone after phone, then smoothed as articulators move."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []

    def pause(self, milliseconds: float) -> None:
        self.add(Phone((500, 1500, 2500), milliseconds, 0.0), milliseconds, False)

    def add(self, phone: Phone, milliseconds: float, stress: bool) -> None:
        count = max(2, round(milliseconds * RATE / 1000 / FRAME))
        for frame in range(count):
            moved = frame / (count - 1) if phone.glide else 0.0
            target = phone.glide or phone.formants
            formants = [a + moved * (b - a) for a, b in zip(phone.formants, target, strict=True)]
            # A plosive is a closure, then a burst in its last 20 ms.
            hiss = phone.hiss if not phone.burst or frame >= count - 4 else 0.0
            self.rows.append(
                (*formants, phone.voice, phone.breath, hiss, phone.hiss_at, phone.hiss_width, float(stress))
            )

    def tracks(self) -> dict[str, np.ndarray]:
        """Formants [frames, 3] and the scalar tracks [frames]."""
        rows = np.array(self.rows)
        formants, voice, breath, hiss = rows[:, :3], rows[:, 3], rows[:, 4], rows[:, 5]
        return {
            "formants": np.stack([_smooth(track, 11) for track in formants.T], axis=1),
            "voice": _smooth(voice, 5),
            "breath": _smooth(breath, 5),
            "hiss": _smooth(hiss, 3),
            "hiss_at": rows[:, 6],
            "hiss_width": rows[:, 7],
            "accent": _smooth(rows[:, 8], 25),
        }


def _smooth(track: np.ndarray, width: int) -> np.ndarray:
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(track, width // 2, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _pitch(accent: np.ndarray, voice: Voice, prosody: Prosody, rng: np.random.Generator) -> np.ndarray:
    """Pitch in Hz, frame by frame: declination, accents on stressed vowels, a final fall, slow drift."""
    time = np.linspace(0.0, 1.0, len(accent))
    movement = 0.9 * accent + 0.5 * (0.5 - time) - 0.5 * np.clip((time - 0.8) / 0.2, 0.0, 1.0)
    drift = _smooth(rng.standard_normal(len(accent)), 31)
    semitones = prosody.pitch + prosody.range * (movement - movement.mean()) + 0.8 * drift
    return voice.pitch * 2.0 ** (semitones / 12)


def _glottal_pulses(pitch_hz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Derivative of Rosenberg's (1971) glottal flow, with 1% jitter and 5% shimmer from pulse to pulse."""
    pulse = np.floor(np.cumsum(pitch_hz) / RATE).astype(int)
    jitter = 1 + 0.01 * rng.standard_normal(pulse[-1] + 2)
    phase = np.cumsum(pitch_hz * jitter[pulse]) / RATE
    pulse, phase = np.floor(phase).astype(int), phase % 1.0
    shimmer = 1 + 0.05 * rng.standard_normal(pulse[-1] + 1)
    opening, closing = 0.4, 0.16
    rising = np.pi / (2 * opening) * np.sin(np.pi * phase / opening)
    falling = -np.pi / (2 * closing) * np.sin(np.pi * (phase - opening) / (2 * closing))
    flow = np.where(phase < opening, rising, np.where(phase < opening + closing, falling, 0.0))
    return flow * shimmer[pulse]


def _resonate(excitation: np.ndarray, formants_f3: np.ndarray) -> np.ndarray:
    upper = np.broadcast_to(UPPER_FORMANTS, (len(formants_f3), len(UPPER_FORMANTS)))
    return _filter(excitation, np.concatenate([formants_f3, upper], axis=1), np.array(BANDWIDTHS))


def _hiss(noise: np.ndarray, centre_f: np.ndarray, width_f: np.ndarray) -> np.ndarray:
    shaped = np.diff(_filter(noise, centre_f[:, None], width_f[:, None]), prepend=0.0)
    return shaped * np.repeat(width_f / centre_f, FRAME)


def _filter(signal: np.ndarray, centres_fn: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """`signal` [frames * FRAME] through n resonators in cascade; centres [frames, n] and widths in Hz."""
    radius = np.broadcast_to(np.exp(-np.pi * widths / RATE), centres_fn.shape)
    sections = np.zeros((*centres_fn.shape, 6))
    sections[..., 3] = 1.0
    sections[..., 4] = -2 * radius * np.cos(2 * np.pi * np.minimum(centres_fn, 0.47 * RATE) / RATE)
    sections[..., 5] = radius**2
    sections[..., 0] = sections[..., 3:].sum(axis=-1)
    state = np.zeros((centres_fn.shape[1], 2))
    out = np.empty_like(signal)
    for frame, section in enumerate(sections):
        chunk = slice(frame * FRAME, (frame + 1) * FRAME)
        out[chunk], state = sosfilt(section, signal[chunk], zi=state)
    return out
