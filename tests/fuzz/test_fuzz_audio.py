"""Damaged audio files: none is read as a shorter, longer, faster or half silent recording."""

import random
import zlib

import mutations
import numpy as np
from audio_formats import NAMES, SECONDS, encoded

from aer_jax.corpora.base import Waveform
from aer_jax.data.audio.read import decode_bytes, usable

TOLERANCE = 0.13  # seconds; encoders pad by less
PART = 0.05
# Their header says the rate once, and nothing in the file contradicts another one.
RATE_ONCE = {"au", "aiff", "caf", "nist"}
# Damage that moves sound about inside raw samples, or replaces it, keeps every length; compressed formats without
# checksums (AMR, AAC in MP4, Opus in WebM) decode the packet all the same.
LENGTH_ONLY = {"swap", "repeat", "zeros", "insert odd", "overwrite odd", "insert", "delete", "flips"}
# A stream of frames has no length: one that was cut, or written twice, between two frames is one.
STREAMS = {"aac", "amr", "mp3 without index"}
RECUT = {"repeat all", "repeat", "cut", "cut the beginning", "delete", "delete much", "swap"}


def loudness(waveform: Waveform) -> np.ndarray:
    size = int(PART * waveform.rate)
    return np.sqrt(np.mean(waveform.samples[: len(waveform.samples) // size * size].reshape(-1, size) ** 2, axis=1))


def judge(name: str, way: str, truth: Waveform, waveform: Waveform) -> str | None:
    if abs(waveform.rate / truth.rate - 1) > 1e-3:
        return None if name in RATE_ONCE else f"{waveform.rate} Hz instead of {truth.rate}"
    seconds, whole = len(waveform.samples) / waveform.rate, len(truth.samples) / truth.rate
    if abs(seconds - whole) > TOLERANCE:
        if (name in STREAMS and way in RECUT) or (name == "mp3" and way == "cut the beginning"):
            return None
        return f"{seconds:.2f} s instead of {whole:.2f} s"
    ours, theirs = (loudness(w)[: int((min(seconds, whole) - TOLERANCE) / PART)] for w in (waveform, truth))
    silent = PART * np.count_nonzero((theirs > 0.02) & (ours < theirs / 20))
    if silent > 2 * TOLERANCE and way not in LENGTH_ONLY:
        return f"{silent:.2f} s of it are silent"
    same = len(waveform.samples) == len(truth.samples) and np.array_equal(waveform.samples, truth.samples)
    return "" if same else None


def test_audio(seeds, tally):
    for name in NAMES:
        whole = encoded(name)
        truth = decode_bytes(whole, "clip.x")
        for seed in seeds(150):
            rng = random.Random(zlib.crc32(f"{name} {seed}".encode()))
            where = rng.random()
            if where < 0.3:  # headers are where one byte decides over all that follows
                head, way = mutations.flip(whole[:400], rng), "flip"
                data = head + whole[400:]
            elif where < 0.4:
                way, head = mutations.damage(whole[:400], rng)
                data = head + whole[400:]
            else:
                way, data = mutations.damage(whole, rng)
            tally.record(
                f"{name}, seed {seed}, {way}",
                lambda data=data: usable(decode_bytes(data, "clip.x"), "clip.x")[0],
                lambda waveform, name=name, way=way, truth=truth: judge(name, way, truth, waveform),
                "clip.x",
            )


def test_audio_of_other_formats_in_the_middle(seeds, tally):
    """The beginning of one file and the end of another."""
    for seed in seeds(300):
        rng = random.Random(seed)
        one, other = rng.sample(NAMES, 2)
        share = rng.uniform(0.05, 0.95)
        data = encoded(one)[: int(share * len(encoded(one)))] + encoded(other)[int(share * len(encoded(other))) :]
        tally.record(
            f"{share:.2f} of {one}, then {other}, seed {seed}",
            lambda data=data: usable(decode_bytes(data, "clip.x"), "clip.x")[0],
            lambda w: (
                None if abs(len(w.samples) / w.rate - SECONDS) < 2 * TOLERANCE else f"{len(w.samples) / w.rate} s"
            ),
            "clip.x",
        )
